//go:build unix

package devstack

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

var errLocked = errors.New("locked by another process")

func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// unlock lets go of a lock, also where a child that was just forked, and has not
// become another program yet, holds the same open file.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

func ownedByUs(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int64(st.Uid) == int64(os.Geteuid())
}

// account is the user that the server runs as; nil is this process's own.
type account struct {
	uid, gid uint32
}

// serverAccount says who the server is to run as, given the data directory,
// which may not exist yet. Only root has a choice, and must make one.
func serverAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is the answer: no change of account
	}
	if fi, err := os.Stat(data); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return &account{uid: st.Uid, gid: st.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &account{uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither an account postgres nor nobody: " +
		"start as another user, or name a server with --postgres")
}

// reaches tells whether the account may pass through every directory down to
// and including dir, going by their modes.
func (a *account) reaches(dir string) bool {
	if a == nil {
		return true
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	if direct, err := filepath.EvalSymlinks(dir); err == nil {
		dir = direct
	}
	for {
		fi, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		bit := os.FileMode(0o001)
		switch {
		case ok && st.Uid == a.uid:
			bit = 0o100
		case ok && st.Gid == a.gid:
			bit = 0o010
		}
		if fi.Mode()&bit == 0 {
			return false
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return true
	}
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// dress makes the command run as the account, and in a process group of its
// own: a Ctrl-C at the terminal is for us, who then stop the server in order.
func (a *account) dress(cmd *exec.Cmd, onParentDeath syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	dieWithParent(cmd.SysProcAttr, onParentDeath)
}

// PostgreSQL's signals: fast ends the sessions and writes a checkpoint, quick
// leaves recovery to the next start. resume sets a stopped process going.
const (
	stopFast  = syscall.SIGINT
	stopQuick = syscall.SIGQUIT
	resume    = syscall.SIGCONT
)

func signalPID(pid int, sig syscall.Signal) error { return syscall.Kill(pid, sig) }
