#!/bin/sh
# /usr/local/bin/edge-agent, root's own. The versions below /opt belong to the updater's user, so root never runs them as root:
# what needs root comes from the copy of the factory's release that only root may write, everything else gives root up first.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ "$(id -u)" = 0 ] || exec /opt/kiosk-fleet/current/bin/edge-agent "$@"
case "${1:-} ${2:-}" in
  "updater pin" | "install-layout "* | "token "*) exec /usr/local/lib/kiosk-fleet/release/bin/edge-agent "$@" ;;
  "updater "*) user=kiosk-updater program=/opt/kiosk-fleet/updater/bin/edge-agent ;;
  *) user=kiosk-fleet program=/opt/kiosk-fleet/current/bin/edge-agent ;;
esac
# With a terminal or a session of its own: a program that shares root's terminal could type into root's shell (TIOCSTI, ioctl_tty(2)).
if [ -t 0 ]; then
  exec runuser --pty -u "$user" -- "$program" "$@"
fi
exec setsid --wait runuser -u "$user" -- "$program" "$@"
