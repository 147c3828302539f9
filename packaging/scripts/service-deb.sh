# What Debian's packages do with a unit: deb-systemd-helper remembers through a removal
# whether it was enabled, and deb-systemd-invoke asks policy-rc.d first.

# unit_installed restarts a service that runs. It starts and enables none.
unit_installed() {
  deb-systemd-helper update-state "$unit" >/dev/null || true
  systemd || return 0
  systemctl --system daemon-reload >/dev/null || true
  # A unit that does not start must not leave the package half installed.
  deb-systemd-invoke try-restart "$unit" || echo "leader-latch: $unit did not start again; see: systemctl status $unit" >&2
}

unit_leaves() {
  systemd || return 0
  deb-systemd-invoke stop "$unit" || true
  # The watchdog of a unit that is gone would kill what goes on.
  if systemctl --quiet is-active "$unit"; then
    echo "leader-latch: $unit runs, and may not be stopped (policy-rc.d); stop it first" >&2
    exit 1
  fi
}

unit_gone() { # remove|purge
  if test "$1" = purge && command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper purge "$unit" >/dev/null || true
  fi
  if systemd; then systemctl --system daemon-reload >/dev/null || true; fi
}
