# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What kernel/build, kernel/boot, kernel/test and kernel/module have in common: where things are kept,
# how a step is announced, and how Debian's packages are fetched with their signature checked.

kernel_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/ackfs-ci/kernel"
mkdir -p "$cache"

started=$SECONDS
say() { printf '[%4d s] %s\n' "$((SECONDS - started))" "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
# Prints the comment at the head of a script, which is its help.
help() { sed -n '2,/^set -/{/^set -/d;/^# SPDX/d;s/^# \{0,1\}//p}' "$0"; }

# use_base VERSION: which kernels are meant from here on. Sets series_version, patch_dir and suffix, which
# tells them apart in the names of what is kept; it is empty for those that are meant unless told otherwise.
use_base() {
    series_version="$1"
    patch_dir="$kernel_dir/patches/$1"
    [ -r "$patch_dir/series" ] || die "no series for Linux $1: $(cd "$kernel_dir/patches" && ls -d [0-9]* | xargs)"
    suffix="-$1"
    [ "$1" != 7.3 ] || suffix=''
}
use_base 7.3

# Installs Debian packages by the commands they bring: need COMMAND:PACKAGE...
need() {
    local item missing=()
    for item in "$@"; do
        command -v "${item%%:*}" >/dev/null || [ -e "${item%%:*}" ] || missing+=("${item#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing packages, and not root to install them: ${missing[*]}"
    say "install ${missing[*]}"
    apt-get update -qq >&2 || die "the package mirror cannot be reached, and these packages are missing: ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "could not install ${missing[*]}"
}
need_build() {
    need gcc:gcc make:make flex:flex bison:bison bc:bc cpio:cpio kmod:kmod ccache:ccache git:git \
        xz:xz-utils perl:perl python3:python3 /usr/include/libelf.h:libelf-dev \
        /usr/include/openssl/ssl.h:libssl-dev
}

# Debian's backports for trixie, from the mirror that this machine uses for Debian itself. The
# signature is checked against Debian's keyring, whatever the machine's own lists say. Sets apt_args.
backports() {
    [ -z "${apt_args:-}" ] || return 0
    local mirror dir="$cache/apt" keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep -E '/debian/?$' | sort -u | head -n 1)" || true
    [ -n "$mirror" ] || die "no Debian mirror in this machine's apt sources"
    [ -r "$keyring" ] || die "no $keyring: install debian-archive-keyring"
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    echo "deb [signed-by=$keyring] $mirror trixie-backports main" >"$dir/sources.list"
    apt_args=(-o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir" -o APT::Sandbox::User=root -qq)
    apt-get "${apt_args[@]}" update >&2 || return 1
}

# Downloads PACKAGE into $cache/deb and prints the file's path. What is there already stays.
fetch() {
    local version file
    version="$(apt-cache "${apt_args[@]}" show "$1" | sed -n 's/^Version: //p' | head -n 1)"
    [ -n "$version" ] || return 1
    mkdir -p "$cache/deb"
    file="$(find "$cache/deb" -name "$1_${version//:/%3a}_*.deb" | head -n 1)"
    if [ -z "$file" ]; then
        say "download $1 $version"
        (cd "$cache/deb" && apt-get "${apt_args[@]}" download "$1" >&2) || return 1
        file="$(find "$cache/deb" -name "$1_${version//:/%3a}_*.deb" | head -n 1)"
    fi
    echo "$file"
}

# Finds the newest source of any point release and sets deb, base (its version) and tree (where
# source_tree unpacks it). What was fetched before serves when the mirror cannot be reached.
source_base() {
    exec 8>"$cache/apt.lock"
    flock 8
    if backports && deb="$(fetch "linux-source-$series_version")"; then
        :
    else
        deb="$(find "$cache/deb" -name "linux-source-${series_version}_*.deb" 2>/dev/null | sort -V | tail -n 1)"
        [ -n "$deb" ] || die "linux-source-$series_version cannot be fetched from the package mirror, and none is kept here"
        say "the package mirror has no answer: using what was fetched before"
    fi
    flock -u 8
    base="$(dpkg-deb -f "$deb" Version)"
    tree="$cache/src/$base/linux"
}

# Unpacks the source, with the files that the patches touch under git as base-as-fetched. Takes the
# lock of the tree, which the script then holds until it ends.
source_tree() {
    exec 9>"$cache/lock"
    flock -n 9 || { say "wait for another build" && flock 9; }
    if [ ! -e "$tree/.unpacked" ]; then
        say "unpack linux-source-$series_version $base"
        rm -rf "$tree"
        mkdir -p "$tree"
        dpkg-deb --fsys-tarfile "$deb" |
            tar -xO "./usr/src/linux-source-$series_version.tar.xz" |
            tar -xJ -C "$tree" --strip-components=1
        touch "$tree/.unpacked"
    fi
    if [ -d "$tree/.git" ] && ! git -C "$tree" cat-file -e base-as-fetched:LICENSES 2>/dev/null; then
        apply
        rm -rf "$tree/.git"
    fi
    if [ ! -d "$tree/.git" ]; then
        local touched
        touched="$(series | xargs -d '\n' sed -n 's,^--- a/,,p' "$kernel_dir"/patches/test-only/*.patch | sort -u)"
        git -C "$tree" init -q -b base
        # LICENSES is what checkpatch's spdxcheck.py looks for in git.
        (cd "$tree" && ls -d LICENSES fs/fuse Documentation/filesystems/fuse tools/testing/selftests/filesystems/fuse \
            $touched 2>/dev/null) | git -C "$tree" add -f --pathspec-from-file=-
        in_tree commit -q -m "$base as Debian has it"
        git -C "$tree" tag base-as-fetched
    fi
}
in_tree() { git -C "$tree" -c user.name=ackfs -c user.email=ackfs@localhost "$@"; }

# Puts the tree into the state: base plus the patches given, applied by git am.
apply() {
    in_tree am --abort 2>/dev/null || true
    git -C "$tree" checkout -q -f -B series base-as-fetched
    git -C "$tree" clean -q -f -d -- fs/fuse Documentation tools/testing/selftests/filesystems/fuse include/uapi/linux
    [ $# = 0 ] || in_tree am -q --whitespace=error "$@" >&2 || die "the series does not apply to $base"
}
series() { sed "/^#/d;/^\$/d;s,^,$patch_dir/," "$patch_dir/series"; }
