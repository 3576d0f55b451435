#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Usage: enter.sh TREE CACHE COMMAND [VARIABLE=VALUE...], as root in mount and process namespaces of its own.
# Runs a shell command in a Debian tree. CACHE keeps what is downloaded: packages, and the user's cache (pip, the kernel).
set -eu
tree=$1 cache=$2 command=$3
shift 3
mount --bind "$tree" "$tree" # unshare in there wants a root that is a mount
mkdir -p "$cache/archives/partial" "$cache/home" "$tree/root/.cache"
mount -t proc proc "$tree/proc"
mount -t sysfs -o ro sysfs "$tree/sys" || echo "no /sys" >&2
mount --rbind /dev "$tree/dev"
mount -t tmpfs tmpfs "$tree/dev/shm"
mount --bind "$cache/archives" "$tree/var/cache/apt/archives"
mount --bind "$cache/home" "$tree/root/.cache"
[ -e "$tree/etc/hosts" ] || echo "127.0.0.1 localhost" > "$tree/etc/hosts" # an installer makes it
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
exec chroot "$tree" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TMPDIR=/tmp \
    DEBIAN_FRONTEND=noninteractive PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@" sh -c "$command"
