//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is what the figures were measured on.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Disk   string `json:"disk"` // file system of the journal
	Go     string `json:"go"`
	Nginx  string `json:"nginx,omitempty"`
}

func describeMachine(dir, nginx string) machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: runtime.GOARCH}
	if src, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(src)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = fmt.Sprintf("%d GB", (info.Totalram*uint64(info.Unit)+1<<29)>>30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		switch fs.Type {
		case unix.EXT4_SUPER_MAGIC:
			m.Disk = "ext4"
		case unix.XFS_SUPER_MAGIC:
			m.Disk = "xfs"
		case unix.BTRFS_SUPER_MAGIC:
			m.Disk = "btrfs"
		case unix.TMPFS_MAGIC:
			m.Disk = "tmpfs (no disk: syncing costs nothing)"
		default:
			m.Disk = fmt.Sprintf("file system %#x", fs.Type)
		}
	}
	if nginx != "" {
		out, _ := exec.Command(nginx, "-v").CombinedOutput() // it is only for the report
		_, m.Nginx, _ = strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	}
	return m
}

// commit is the one that is checked out, with a mark if files differ from it.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	id := string(bytes.TrimSpace(out))
	if changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(changed) > 0 {
		id += " with changes"
	}
	return id
}

// cpuTime is what a process has used of user and system time, to the nanosecond: its
// CPU clock, as clock_getcpuclockid(3) names it.
func cpuTime(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// busyTime is what all processes of the machine have used, and what other guests took.
// Interrupts are not counted: most are of our own packets.
func busyTime() (time.Duration, error) {
	src, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(src), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ
}

// residentMemory is the resident set of a process, in bytes.
func residentMemory(pid int) (int64, error) {
	src, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(src)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d tells no resident memory", pid)
}

// allowedCPUs are those that this process may run on.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("CPUs of this process: %w", err)
	}
	var out []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out, nil
}

// pinSelf keeps every thread of this process on some CPUs; new threads inherit it.
func pinSelf(cpus []int) error {
	for range 2 { // a thread may be born in between
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := pin(id, cpus); err != nil && !strings.Contains(err.Error(), unix.ESRCH.Error()) {
				return err
			}
		}
	}
	return nil
}

// startOn starts a process that stays on some CPUs.
func startOn(cmd *exec.Cmd, cpus, own []int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := pin(0, cpus); err != nil {
		return err
	}
	err := cmd.Start()
	if back := pin(0, own); err == nil {
		err = back
	}
	return err
}

// otherFiles is more than what a process has open beside its connections.
const otherFiles = 200

// openFiles raises the limit of open files, which contestants inherit, and says how many
// streams can be held open: each takes two in a contestant.
func openFiles(want int) int {
	need := uint64(2*want + otherFiles)
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return want
	}
	if l.Max < need {
		raised := syscall.Rlimit{Cur: need, Max: need} // root may
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			return want
		}
	}
	l.Cur = min(max(need, l.Cur), l.Max)
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return want
	}
	return min(want, (int(l.Cur)-otherFiles)/2)
}
