# Shared by the four scripts of the package, which dpkg and rpm both run. They
# may run again after a failure, and where no systemd runs, as in a container.
conf=/etc/riak/riak.conf
program=/usr/sbin/leader-latch
unit=leader-latch.service

# state_dir prints the folder of the service's state. It reads the file by itself,
# as at a purge the program is gone: the last platform_data_dir of riak.conf and
# leader-latch.conf. Files that these include are not read.
state_dir() {
  data=$(cat "$conf" /etc/riak/leader-latch.conf 2>/dev/null |
    sed -n 's/^[[:space:]]*platform_data_dir[[:space:]]*=[[:space:]]*\([^#]*\).*/\1/p' |
    sed -n 's/[[:space:]]*$//;$p')
  case $data in
    "") data=/var/lib/riak ;;
    /*) ;;
    *) data=/etc/$data ;; # relative to the parent of riak.conf's folder
  esac
  echo "$data/leader_latch"
}

# systemd succeeds where systemd runs.
systemd() { test -d /run/systemd/system; }

# process prints the id of the process that serves on the state folder.
process() {
  pid=$(cat "$(state_dir)/lock" 2>/dev/null) || return 0
  case $(readlink "/proc/$pid/exe" 2>/dev/null) in
    "$program" | "$program (deleted)") echo "$pid" ;;
  esac
}
