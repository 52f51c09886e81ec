#!/bin/sh
# Lays the first version out on a terminal with systemd, as root:  sh install.sh <release.tar> <version> [sha256]
# Afterwards: edge-agent enrol …, edge-agent updater pin --fleet-root …, systemctl enable --now edge-agent edge-agent-updater edge-agent-switch.path
set -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "This needs root." >&2; exit 1; }
[ $# -ge 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
image=$1 version=$2 sha256=${3:-}
here=$(cd -- "$(dirname -- "$0")" && pwd)

if [ -n "$sha256" ]; then
  echo "$sha256  $image" | sha256sum --check --quiet
fi
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar --extract --file "$image" --directory "$unpacked" --no-same-owner --no-same-permissions

install -d -m 0755 /etc/kiosk-fleet /usr/local/lib/kiosk-fleet /usr/local/bin
install -m 0644 "$here/kiosk-fleet.sysusers.conf" /usr/lib/sysusers.d/kiosk-fleet.conf
install -m 0644 "$here/kiosk-fleet.tmpfiles.conf" /usr/lib/tmpfiles.d/kiosk-fleet.conf
systemd-sysusers kiosk-fleet.conf
systemd-tmpfiles --create kiosk-fleet.conf
# The launcher is root's and lies outside the versions: no update of the agent changes it, no other user can.
install -m 0644 "$here/../launcher.py" /usr/local/lib/kiosk-fleet/launcher.py
install -m 0644 "$here/90-kiosk-fleet.rules" /etc/udev/rules.d/90-kiosk-fleet.rules
python=/usr/bin/python3
if ! "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
  # A machine without Python: a copy of the release's, root's as well, that no update changes.
  rm -rf /usr/local/lib/kiosk-fleet/python
  cp -R "$unpacked/python" /usr/local/lib/kiosk-fleet/python
  python=/usr/local/lib/kiosk-fleet/python3
  printf '#!/bin/sh\nLD_LIBRARY_PATH=/usr/local/lib/kiosk-fleet/python/solib exec /usr/local/lib/kiosk-fleet/python/bin/python3 "$@"\n' > "$python"
  chmod 0755 "$python"
fi
for unit in edge-agent.service edge-agent-updater.service edge-agent-switch.path edge-agent-switch.service; do
  sed "s#/usr/bin/python3#$python#" "$here/$unit" > "/etc/systemd/system/$unit"
  chmod 0644 "/etc/systemd/system/$unit"
done
for file in agent.toml updater.toml; do
  [ -e "/etc/kiosk-fleet/$file" ] || install -m 0644 "$here/$file" "/etc/kiosk-fleet/$file"
done
"$unpacked/bin/edge-agent" install-layout --image "$image" --version "$version"
chown -R --no-dereference kiosk-updater:kiosk-updater /opt/kiosk-fleet
# What root runs is root's: a copy of this release that no update changes, and a command that runs nothing else as root.
rm -rf /usr/local/lib/kiosk-fleet/release.new
cp -R "$unpacked" /usr/local/lib/kiosk-fleet/release.new
chmod 0755 /usr/local/lib/kiosk-fleet/release.new
rm -rf /usr/local/lib/kiosk-fleet/release
mv /usr/local/lib/kiosk-fleet/release.new /usr/local/lib/kiosk-fleet/release
rm -f /usr/local/bin/edge-agent
install -m 0755 "$here/edge-agent.sh" /usr/local/bin/edge-agent
# What lies below belongs to the agent's user, so that user makes it: root would follow a link there.
install -d -m 0700 -o kiosk-fleet -g kiosk-fleet /var/lib/kiosk-fleet
runuser -u kiosk-fleet -- mkdir -p -m 0700 /var/lib/kiosk-fleet/identity /var/lib/kiosk-fleet/state
udevadm control --reload && udevadm trigger || true
systemctl daemon-reload
echo "Laid out. Next: edge-agent enrol --code <code> --terminal <id> --ca-fingerprint <fingerprint>; edge-agent updater pin --fleet-root <fingerprint>;"
echo "systemctl enable --now edge-agent edge-agent-updater edge-agent-switch.path"
