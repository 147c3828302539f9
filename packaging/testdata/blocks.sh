# block prints the first or a later block of code of a section of $document, as it is: the
# tests play what it says.
block() { # HEADING [NUMBER]
  awk -v heading="## $1" -v number="${2:-1}" '
    /^## / {here = $0 == heading}
    here && /^    / {if (!block) count++; block = 1; if (count == number) print substr($0, 5)}
    here && !/^    / && !/^$/ {block = 0}' "$document" | grep .
}
