#!/usr/bin/env bash
# Installs the Debian packages that the lab and its tests need, when they are
# missing. Says what it does, does nothing when there is nothing to do.
set -euo pipefail

declare -A package=(
	[containerd]=containerd [runc]=runc [nft]=nftables [ip]=iproute2 [nsenter]=util-linux
	[busybox]=busybox-static [iperf3]=iperf3 [curl]=curl [jq]=jq [protoc]=protobuf-compiler
	[conntrack]=conntrack [miniupnpd]=miniupnpd-nftables
)

missing=()
for tool in "${!package[@]}"; do
	command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
# The well-known types that protoc imports; and a busybox that is not static
# cannot be the only file of an image.
[[ -e /usr/include/google/protobuf/timestamp.proto ]] || missing+=(libprotobuf-dev)
if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing+=(busybox-static)
fi

((${#missing[@]})) || exit 0

echo "setup: installing ${missing[*]}"
if ! command -v apt-get >/dev/null; then
	echo "setup: no apt-get here: install these by other means: ${missing[*]}" >&2
	exit 1
fi
if ((EUID != 0)); then
	echo "setup: run as root, or: sudo apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# containerd is wanted as a program; its service stays off.
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
