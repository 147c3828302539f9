# What packages of rpm do with a unit.

# unit_installed restarts a service that runs. It starts and enables none.
unit_installed() {
  systemd || return 0
  systemctl daemon-reload || true
  # A unit that does not start must not leave the package half installed.
  systemctl try-restart "$unit" || echo "leader-latch: $unit did not start again; see: systemctl status $unit" >&2
}

unit_leaves() {
  systemd || return 0
  systemctl --no-reload disable --now "$unit" || true
}

unit_gone() {
  if systemd; then systemctl daemon-reload || true; fi
}
