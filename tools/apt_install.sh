#!/usr/bin/env bash
# Installs Debian packages, or tells who may not do that how to.
#   tools/apt_install.sh WHO PACKAGE...    WHO says it
set -euo pipefail
who=$1
shift
install="apt-get install -y --no-install-recommends $*"
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
  printf '%s: installing %s\n' "$who" "$*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $install -qq > /dev/null
else
  printf '%s: some system packages are missing. Run this, then again what you ran: sudo %s\n' "$who" "$install" >&2
  exit 1
fi
