#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A systemd of its own as process 1 of a namespace, on an overlay of this machine's root: what is
# installed there is gone with it. It starts nothing but multi-user.target.
#
#   lib_systemd.sh DIRECTORY DOCKER-SOCKET BPFFS [FILE]...    becomes systemd; FILEs are in its /srv
#
# To be run by `unshare --pid --mount --fork`, in the network namespace and cgroup that it is to have.
set -euo pipefail
dir=$1 docker_socket=$2 bpffs=$3

mount --make-rprivate /
mkdir -p "$dir"
mount -t tmpfs tmpfs "$dir"
mkdir -p "$dir"/{upper,work,root}
root=$dir/root
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/srv"
mount -t tmpfs tmpfs "$root/etc/systemd/system"
for file in "${@:4}"; do
	cp "$file" "$root/srv"
done
rm -f "$root/usr/sbin/policy-rc.d"
rm -rf "$root"/lib/systemd/system/*.wants
mkdir "$root/run/lock" "$root/run/old"
touch "$root/run/docker.sock"
mount --bind "$docker_socket" "$root/run/docker.sock"
mount --bind "$bpffs" "$root/sys/fs/bpf"
cd "$root"
pivot_root . run/old
umount --lazy /run/old
# what tells systemd that it is in a container, and by whom
export container=kkm-lab
exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
