# Shared by the scripts of the packages for dpkg and rpm. They may run again after a
# failure, and where no systemd runs, as in a container.
conf=/etc/riak/riak.conf
template=/usr/share/leader-latch/riak.conf
program=/usr/sbin/leader-latch
unit=leader-latch.service

# What the scripts note for each other:
#   state-folder  where the service's state was when the program was last asked
#   riak.conf     the one that they put into /etc/riak, as it was then
#   made          the folders that they have made
notes=/var/lib/leader-latch

# state_folder prints the folder of the service's state, as the program finds it. Where
# there is no program, or riak.conf is not to be read, it is the one that was noted.
state_folder() {
  "$program" installed state-folder 2>/dev/null || cat "$notes/state-folder" 2>/dev/null || echo /var/lib/riak/leader_latch
}

# note writes its input to a note, all or nothing.
note() { # NAME
  mkdir -p "$notes"
  cat >"$notes/$1.new"
  mv "$notes/$1.new" "$notes/$1"
}

# unchanged succeeds where /etc/riak/riak.conf is the one that these scripts put there.
unchanged() { test -f "$notes/riak.conf" && cmp -s "$conf" "$notes/riak.conf"; }

# systemd succeeds where systemd runs.
systemd() { test -d /run/systemd/system; }

# process prints the id of the process that serves on a state folder.
process() { # FOLDER
  pid=$(cat "$1/lock" 2>/dev/null) || return 0
  case $(readlink "/proc/$pid/exe" 2>/dev/null) in
    # Seen from a chroot, the path of one in the unit's own mounts is longer.
    *"$program" | *"$program (deleted)") echo "$pid" ;;
  esac
}
