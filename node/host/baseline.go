package host

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// setting is a value that a hardened host has.
type setting struct {
	key  string
	want int // what to set
	also int // another value that is as good; the same as want when there is none
}

// The settings follow the CIS benchmarks for Linux, as far as they matter to a
// machine that runs other people's containers and forwards packets.
var (
	kernelSettings = []setting{
		{"kernel.randomize_va_space", 2, 2},
		{"kernel.kptr_restrict", 1, 2},
		{"kernel.dmesg_restrict", 1, 1},
		{"kernel.yama.ptrace_scope", 1, 2},
		{"kernel.unprivileged_bpf_disabled", 1, 2},
		{"fs.protected_hardlinks", 1, 1},
		{"fs.protected_symlinks", 1, 1},
		{"fs.protected_fifos", 1, 2},
		{"fs.protected_regular", 1, 2},
		{"fs.suid_dumpable", 0, 2},
	}
	networkSettings = []setting{
		{"net.ipv4.conf.all.accept_redirects", 0, 0},
		{"net.ipv4.conf.all.send_redirects", 0, 0},
		{"net.ipv4.conf.all.accept_source_route", 0, 0},
		{"net.ipv4.icmp_echo_ignore_broadcasts", 1, 1},
		{"net.ipv4.icmp_ignore_bogus_error_responses", 1, 1},
		{"net.ipv4.tcp_syncookies", 1, 1},
		{"net.ipv6.conf.all.accept_redirects", 0, 0},
		{"net.ipv6.conf.all.accept_source_route", 0, 0},
	}
)

func (e Examination) kernelHardening(context.Context) (api.Check, bool) {
	return e.hardening("kernel-hardening", kernelSettings)
}

func (e Examination) networkHardening(context.Context) (api.Check, bool) {
	return e.hardening("network-hardening", networkSettings)
}

// hardening compares settings with what they should be. One that the kernel
// does not have needs no setting.
func (e Examination) hardening(name string, settings []setting) (api.Check, bool) {
	var differ, fixes []string
	seen := 0
	for _, s := range settings {
		has, known := number(e.Root, "proc/sys/"+strings.ReplaceAll(s.key, ".", "/"))
		if !known {
			continue
		}
		seen++
		if has != s.want && has != s.also {
			differ = append(differ, fmt.Sprintf("%s is %d", s.key, has))
			fixes = append(fixes, fmt.Sprintf("%s=%d", s.key, s.want))
		}
	}
	switch {
	case seen == 0:
		return notMade()
	case len(differ) > 0:
		return warn(name, "write to /etc/sysctl.d/60-hardening.conf, a line each, and run sysctl --system: "+strings.Join(fixes, " "), "%s", strings.Join(differ, ", "))
	}
	return ok(name, "all of %d settings as they should be", seen)
}

func (e Examination) accounts(context.Context) (api.Check, bool) {
	const name = "accounts"
	passwd := text(e.Root, "etc/passwd")
	if passwd == "" {
		return notMade()
	}
	if loose(e.Root, "/etc/shadow", 0o037) != 0 {
		return fail(name, "chmod 640 /etc/shadow", "the hashes of passwords in /etc/shadow are readable by others, or writable")
	}
	var roots, empty []string
	for line := range strings.Lines(passwd) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 && f[2] == "0" && f[0] != "root" {
			roots = append(roots, f[0])
		}
	}
	for line := range strings.Lines(text(e.Root, "etc/shadow")) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 1 && f[0] != "" && f[1] == "" {
			empty = append(empty, f[0])
		}
	}
	switch {
	case len(empty) > 0:
		return fail(name, "passwd -l "+empty[0], "no password protects %s", several(empty))
	case len(roots) > 0:
		return warn(name, "give them another user id, or delete them", "root under other names: %s", several(roots))
	}
	return ok(name, "every account has a password or none that works, and root is alone")
}

func (e Examination) ssh(context.Context) (api.Check, bool) {
	const name = "ssh"
	config := text(e.Root, "etc/ssh/sshd_config")
	if config == "" {
		return notMade()
	}
	// The first word on a matter counts, and what is included comes first where
	// distributions include it: at the top.
	var all strings.Builder
	for _, file := range names(e.Root, "etc/ssh/sshd_config.d") {
		if strings.HasSuffix(file, ".conf") {
			all.WriteString(text(e.Root, "etc/ssh/sshd_config.d/"+file) + "\n")
		}
	}
	all.WriteString(config)
	said := firstWords(all.String())
	var wrong, fixes []string
	if said["permitrootlogin"] == "yes" {
		wrong, fixes = append(wrong, "root may log in with a password"), append(fixes, "PermitRootLogin prohibit-password")
	}
	if v := said["passwordauthentication"]; v != "no" {
		wrong, fixes = append(wrong, "passwords can be guessed over the network"), append(fixes, "PasswordAuthentication no")
	}
	if said["permitemptypasswords"] == "yes" {
		wrong, fixes = append(wrong, "empty passwords are taken"), append(fixes, "PermitEmptyPasswords no")
	}
	if len(wrong) > 0 {
		return warn(name, "with your own key in place, put into /etc/ssh/sshd_config.d/10-keys.conf: "+strings.Join(fixes, ", "), "%s", strings.Join(wrong, ", "))
	}
	return ok(name, "keys only")
}

// firstWords reads keys and values of sshd_config outside of Match blocks.
func firstWords(config string) map[string]string {
	said := map[string]string{}
	for line := range strings.Lines(config) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		key := strings.ToLower(words[0])
		if key == "match" {
			break
		}
		if _, known := said[key]; !known {
			said[key] = strings.ToLower(strings.Trim(words[1], `"`))
		}
	}
	return said
}

// swap looks for a place where secrets in memory get to a disk in clear.
func (e Examination) swap(context.Context) (api.Check, bool) {
	const name = "swap"
	table := text(e.Root, "proc/swaps")
	if table == "" {
		return notMade()
	}
	var clear []string
	for i, line := range slices.Collect(strings.Lines(table)) {
		words := strings.Fields(line)
		if i == 0 || len(words) == 0 || strings.Contains(words[0], "zram") || e.encrypted(words[0]) {
			continue
		}
		clear = append(clear, words[0])
	}
	if len(clear) > 0 {
		return warn(name, "swapoff -a, or encrypt it (crypttab with a random key), or use zram", "%s: keys and secrets in memory may get to the disk in clear", several(clear))
	}
	return ok(name, "none in clear on a disk")
}

// encrypted reports whether a device is a mapping by dm-crypt.
func (e Examination) encrypted(device string) bool {
	name := strings.TrimPrefix(strings.TrimPrefix(device, "/dev/"), "mapper/")
	disk := diskNamed(e.Root, name)
	return disk != "" && strings.HasPrefix(text(e.Root, "sys/block/"+disk+"/dm/uuid"), "CRYPT-")
}

// updates looks whether security fixes come by themselves, where Debian's way
// to do that is known.
func (e Examination) updates(context.Context) (api.Check, bool) {
	const name = "updates"
	files := names(e.Root, "etc/apt/apt.conf.d")
	if len(files) == 0 {
		return notMade()
	}
	for _, file := range files {
		for line := range strings.Lines(text(e.Root, "etc/apt/apt.conf.d/"+file)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ";"), " ")
			if key != "APT::Periodic::Unattended-Upgrade" {
				continue
			}
			if days, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`)); err == nil && days > 0 {
				return ok(name, "security fixes are installed by themselves")
			}
		}
	}
	return warn(name, "apt-get install unattended-upgrades && dpkg-reconfigure -plow unattended-upgrades", "nobody installs security fixes by themselves")
}
