//go:build faults

package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// slowImage is what lies under a host's disk: a file system (fuse(4)) that has one file, the
// disk's image, at its root, and by which each flush can be made to take longer. All else is
// passed on. A process of its own serves it, as this one has thousands of clients to attend to,
// and the nodes would wait for it.
type slowImage struct {
	server *exec.Cmd
	orders io.WriteCloser // to the server: a line for each change, by how many nanoseconds a flush takes longer
	mu     sync.Mutex
	each   time.Duration
}

// asImage makes the test binary be the server of a slowImage: its value is the image's path.
const asImage = "LEADER_LATCH_TEST_AS_IMAGE"

func init() {
	if path := os.Getenv(asImage); path != "" {
		beImage(path)
		os.Exit(0)
	}
}

// mountImage has what is read and written at this path go through a slowImage, until it is
// unmounted.
func mountImage(path string) (s *slowImage, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s = &slowImage{server: exec.Command(exe)}
	s.server.Env = append(os.Environ(), asImage+"="+path)
	s.server.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt of the test leaves it, as the disk lies on it
	if s.orders, err = s.server.StdinPipe(); err != nil {
		return nil, err
	}
	said, err := s.server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.server.Start(); err != nil {
		return nil, err
	}
	answer, _ := bufio.NewReader(said).ReadString('\n')
	if answer != imageMounted {
		s.server.Wait()
		return nil, errors.New(strings.TrimSpace(answer))
	}
	go s.server.Wait()
	return s, nil
}

const imageMounted = "mounted\n"

// slower has each flush take so much longer than now; by less than nothing it is shorter again.
func (s *slowImage) slower(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each += by
	fmt.Fprintln(s.orders, s.each.Nanoseconds())
}

// beImage serves a slowImage: it says imageMounted or what is wrong, takes orders, and ends when
// the file system is unmounted.
func beImage(path string) {
	unix.Setpriority(unix.PRIO_PROCESS, 0, -10) // a disk is not slow because others want the processor
	s, err := newImageServer(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(imageMounted)
	go func() {
		for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
			if each, err := strconv.ParseInt(orders.Text(), 10, 64); err == nil {
				s.each.Store(each)
			}
		}
	}()
	s.serve()
}

// imageServer is the server's side of a slowImage.
type imageServer struct {
	image, device *os.File
	each          atomic.Int64 // by how many nanoseconds a flush takes longer
}

// The requests that the kernel has for such a file, by their numbers in linux/fuse.h.
const (
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42

	fuseHeader  = 40 // of a request: length, number, id (at 8), ...
	fuseMost    = 128 << 10
	fuseForever = 1 << 32 // seconds for which what is known of the file is true
)

func newImageServer(path string) (s *imageServer, err error) {
	s = new(imageServer)
	if s.image, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0) // to be waited for by a thread: before it is mounted nothing polls it
	if err == nil {
		s.device = os.NewFile(uintptr(device), "/dev/fuse")
		if err = unix.Mount("slow-image", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", device)); err != nil {
			s.device.Close()
		}
	}
	if err != nil {
		s.image.Close()
		return nil, err
	}
	return s, nil
}

// serve answers the kernel until the file system is unmounted. A flush is answered beside
// what comes in after it.
func (s *imageServer) serve() {
	defer s.image.Close()
	defer s.device.Close()
	for b := make([]byte, fuseHeader+fuseMost+4096); ; {
		n, err := s.device.Read(b)
		if err != nil {
			return
		}
		request := b[:n]
		switch id := request[8:16]; binary.NativeEndian.Uint32(request[4:]) {
		case fuseForget, fuseBatchForget, fuseInterrupt: // have no answer
		case fuseFsync:
			id := append([]byte(nil), id...)
			go func() {
				time.Sleep(time.Duration(s.each.Load()))
				s.answer(id, nil, s.image.Sync())
			}()
		default:
			answer, err := s.do(request)
			s.answer(id, answer, err)
		}
	}
}

func (s *imageServer) answer(id, answer []byte, err error) {
	code := 0
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = unix.EIO
		}
		answer, code = nil, -int(errno)
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(answer)))
	b = binary.NativeEndian.AppendUint32(b, uint32(code))
	b = append(append(b, id...), answer...)
	s.device.Write(b) // fails where nobody waits any more
}

// do does what is asked for, and gives the answer as linux/fuse.h has it.
func (s *imageServer) do(request []byte) (answer []byte, err error) {
	u32, u64 := binary.NativeEndian.AppendUint32, binary.NativeEndian.AppendUint64
	args := request[fuseHeader:]
	place := func() (offset int64, size uint32) { // of fuse_read_in and fuse_write_in
		return int64(binary.NativeEndian.Uint64(args[8:])), binary.NativeEndian.Uint32(args[16:])
	}
	switch binary.NativeEndian.Uint32(request[4:]) {
	case fuseInit:
		answer = u32(u32(answer, 7), 31)       // the version of the protocol
		answer = u32(u32(answer, fuseMost), 0) // what is read ahead; nothing special
		answer = u32(u32(answer, 0), fuseMost) // in the background as the kernel likes; the most in a write
		return append(answer, make([]byte, 40)...), nil
	case fuseGetattr:
		info, err := s.image.Stat()
		if err != nil {
			return nil, err
		}
		answer = u64(u64(answer, fuseForever), 0)
		answer = u64(u64(u64(answer, 1), uint64(info.Size())), uint64(info.Size())/512)
		answer = append(answer, make([]byte, 3*8+3*4)...) // times
		answer = u32(u32(answer, unix.S_IFREG|0o600), 1)
		answer = append(answer, make([]byte, 3*4)...) // user, group, device
		return u32(u32(answer, 4096), 0), nil
	case fuseOpen:
		return make([]byte, 16), nil
	case fuseRead:
		offset, size := place()
		answer = make([]byte, size)
		n, _ := s.image.ReadAt(answer, offset)
		return answer[:n], nil
	case fuseWrite:
		offset, size := place()
		if _, err := s.image.WriteAt(args[40:40+size], offset); err != nil {
			return nil, err
		}
		return u32(u32(answer, size), 0), nil
	case fuseRelease, fuseFlush:
		return nil, nil
	}
	return nil, unix.ENOSYS
}
