"""A disk with a volatile cache, as a program: `python3 -m controller.disk FILE SOCKET CONTROL`.

It serves FILE over NBD on SOCKET. What is written stays in its cache until a flush, or until the
cache is full, and only then reaches FILE. On CONTROL it takes one command per connection:

    lose SEED       power loss: any subset of what was not flushed reaches FILE, the rest is gone
    fail KIND...    requests of these kinds (read, write, flush) fail from now on
    slow SECONDS    every request takes so much longer
    heal            neither of them any more
"""

import os
import random
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

BLOCK, SECTOR = 4096, 512
CACHE_BLOCKS = 8192  # 32 MiB; a real disk has about as much
READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
KINDS = {READ: "read", WRITE: "write", FLUSH: "flush", TRIM: "write", ZEROES: "write"}
FUA = 1
FEATURES = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6  # flush, FUA, trim, write zeroes
EIO, EINVAL = 5, 22
LARGEST = 32 << 20


class Media:
    """The file and the cache above it."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size
        self.cache = {}  # number of a block -> its bytes, not yet in the file

    def read(self, offset, length):
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        data = bytearray(os.pread(self.fd, (end - first) * BLOCK, first * BLOCK))
        data.extend(bytes((end - first) * BLOCK - len(data)))
        for number in range(first, end) if self.cache else ():
            if number in self.cache:
                data[(number - first) * BLOCK:(number - first + 1) * BLOCK] = self.cache[number]
        skip = offset - first * BLOCK
        return data[skip:skip + length]

    def write(self, offset, data):
        first, skip = offset // BLOCK, offset % BLOCK
        if skip or len(data) % BLOCK:
            whole = self.read(first * BLOCK, -(-(skip + len(data)) // BLOCK) * BLOCK)
            whole[skip:skip + len(data)] = data
            data = whole
        view = memoryview(data)
        for i in range(len(data) // BLOCK):
            self.cache.pop(first + i, None)  # the newest at the end
            self.cache[first + i] = bytes(view[i * BLOCK:(i + 1) * BLOCK])
        while len(self.cache) > CACHE_BLOCKS:
            number = next(iter(self.cache))
            os.pwrite(self.fd, self.cache.pop(number), number * BLOCK)

    def flush(self):
        numbers, at = sorted(self.cache), 0
        while at < len(numbers):
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
                end += 1
            os.pwrite(self.fd, b"".join(self.cache[n] for n in numbers[at:end]), numbers[at] * BLOCK)
            at = end
        self.cache.clear()

    def lose(self, seed):
        """How many blocks were in the cache, and how many of them are lost, wholly or in part."""
        chance, count, lost = random.Random(seed), len(self.cache), 0
        for number, data in self.cache.items():
            fate = chance.random()
            if fate < 0.45:
                os.pwrite(self.fd, data, number * BLOCK)
                continue
            lost += 1
            if fate < 0.55:  # torn: only some of its sectors
                for at in range(0, BLOCK, SECTOR):
                    if chance.random() < 0.5:
                        os.pwrite(self.fd, data[at:at + SECTOR], number * BLOCK + at)
        self.cache.clear()
        return count, lost


class Disk:
    """Serves one media to one client at a time."""

    def __init__(self, media):
        self.media, self.lock = media, threading.Lock()
        self.failing, self.slow = set(), 0.0
        self.idle = threading.Event()
        self.idle.set()

    def request(self, kind, flags, offset, length, data):
        """The errno and what was read."""
        if self.slow:
            time.sleep(self.slow)
        with self.lock:
            if KINDS.get(kind) in self.failing:
                return EIO, b""
            if offset + length > -(-self.media.size // BLOCK) * BLOCK:
                return EINVAL, b""
            if kind == READ:
                return 0, self.media.read(offset, length)
            if kind == WRITE:
                self.media.write(offset, data)
            elif kind in (TRIM, ZEROES):
                for at in range(offset, offset + length, LARGEST):
                    self.media.write(at, bytes(min(LARGEST, offset + length - at)))
            elif kind != FLUSH:
                return EINVAL, b""
            if kind == FLUSH or flags & FUA:
                self.media.flush()
            return 0, b""

    def command(self, line):
        word, *rest = line.split() or [""]
        if word == "lose":
            self.idle.wait(10)  # what the dead machine had sent still arrives
            with self.lock:
                return "%d %d" % self.media.lose(rest[0])
        if word == "fail":
            self.failing = set(rest)
        elif word == "slow":
            self.slow = float(rest[0])
        elif word == "heal":
            self.failing, self.slow = set(), 0.0
        else:
            return f"no such command: {line}"
        return "ok"


# ---- NBD


def take(connection, length):
    """Exactly so many bytes, or EOFError."""
    data = bytearray(length)
    view, have = memoryview(data), 0
    while have < length:
        got = connection.recv_into(view[have:])
        if not got:
            raise EOFError
        have += got
    return data


def negotiate(connection, size):
    connection.sendall(struct.pack(">8sQH", b"NBDMAGIC", 0x49484156454F5054, 3))
    take(connection, 4)
    while True:
        _, option, length = struct.unpack(">QII", take(connection, 16))
        if length > 4096:
            raise EOFError
        take(connection, length)

        def reply(kind, data=b"", option=option):
            connection.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

        if option in (6, 7):  # info, go
            reply(3, struct.pack(">HQH", 0, size, FEATURES))
            reply(1)
            if option == 7:
                return
        elif option == 2:  # abort
            reply(1)
            raise EOFError
        else:
            reply(0x80000001)


def serve(connection, disk):
    negotiate(connection, disk.media.size)
    while True:
        _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", take(connection, 28))
        if kind == DISC or (kind in (READ, WRITE) and length > LARGEST):
            return
        data = take(connection, length) if kind == WRITE else b""
        error, answer = disk.request(kind, flags, offset, length, data)
        connection.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + answer)


def listen(path):
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(4)
    os.rename(path + ".new", path)  # who sees it can connect
    return listener


def take_commands(listener, disk):
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(disk.command(connection.recv(1000).decode()).encode())


def main():
    file, path, control = sys.argv[1:4]
    disk = Disk(Media(file))
    commands = listen(control)
    listener = listen(path)
    threading.Thread(target=take_commands, args=(commands, disk), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        disk.idle.clear()
        with connection, suppress(EOFError, OSError):
            serve(connection, disk)
        disk.idle.set()


if __name__ == "__main__":
    main()
