"""A program in a cage: ``python -I cage.py PROGRAM ARGUMENT…`` becomes the program, with limits that it cannot lift.

On Linux the kernel refuses it sockets, new processes, signals, and every change to files, whatever runs in it; core dumps are off,
memory is bounded, and it ends with its parent. Elsewhere only the limits hold. Nothing of gtft is imported here: it starts in no time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys

# Bytes of private memory. V8 reserves far more addresses than it uses, so RLIMIT_AS would not do.
_MEMORY = 1 << 30
_SET_PDEATHSIG, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 22, 38
_FILTER = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_CLONE_THREAD = 0x10000
# AUDIT_ARCH, clone, clone3, openat, and what is refused, by number: asm/unistd_64.h and asm-generic/unistd.h.
_X86_64 = (0xC000003E, 56, 435, 257)
_AARCH64 = (0xC00000B7, 220, 435, 56)
_REFUSED = {
    # socket … getsockopt, fork, vfork, kill, rename … chmod, chown, mknod, ptrace, tkill, *at, process_vm_*, io_uring, new opens
    "x86_64": (*range(41, 51), 53, 57, 58, 62, 76, 77, *range(82, 89), *range(90, 95), 101, 133, 200, 234, *range(258, 262),
               *range(263, 267), 268, 285, 288, 299, 307, 310, 311, 316, 321, 322, 424, 425, 434, 437, 438, 452),
    "aarch64": (*range(33, 39), 45, 46, 47, *range(52, 56), 117, 129, 130, 131, *range(198, 213), 242, 243, 269, 270,
                271, 276, 280, 281, 424, 425, 434, 437, 438, 452),
}  # fmt: skip
_OPEN = {"x86_64": 2, "aarch64": None}


def _step(code: int, jump: int, miss: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, jump, miss, value)


def make_filter(machine: str) -> bytes:
    """The seccomp program (struct sock_filter, little endian) for ``machine``; empty when it is not known."""
    if machine not in _REFUSED:
        return b""
    arch, clone, clone3, openat = _X86_64 if machine == "x86_64" else _AARCH64
    refuse = _step(_RETURN, 0, 0, _ERRNO | errno.EPERM)
    steps = [
        _step(_LOAD, 0, 0, 4),
        _step(_EQUAL, 1, 0, arch),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        # The x32 numbers, which would walk around the list.
        steps += [_step(0x35, 0, 1, 0x40000000), refuse]
    for number in _REFUSED[machine]:
        steps += [_step(_EQUAL, 0, 1, number), refuse]
    # glibc then falls back to clone, whose flags can be looked at.
    steps += [_step(_EQUAL, 0, 1, clone3), _step(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    steps += [
        _step(_EQUAL, 0, 4, clone),
        _step(_LOAD, 0, 0, 16),
        _step(_ANY_BIT, 1, 0, _CLONE_THREAD),
        refuse,
        _step(_RETURN, 0, 0, _ALLOW),
    ]
    for number, flags in ((openat, 32), (_OPEN[machine], 24)):
        if number is not None:
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            steps += [
                _step(_EQUAL, 0, 4, number),
                _step(_LOAD, 0, 0, flags),
                _step(_ANY_BIT, 0, 1, writes),
                refuse,
                _step(_RETURN, 0, 0, _ALLOW),
            ]
    return b"".join([*steps, _step(_RETURN, 0, 0, _ALLOW)])


def close_cage() -> None:
    """Limits for this process and all that it becomes. They cannot be lifted again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    program = make_filter(platform.machine()) if sys.platform == "linux" else b""
    if not program:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    # A kernel without seccomp says no; what the program does to itself must then be enough.
    libc.prctl(_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(head, len(head)), 0, 0)


if __name__ == "__main__":
    close_cage()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606
