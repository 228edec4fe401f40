"""What is published may be decoded for the first time by several threads at once: those of a server, or of a worker's host."""

import subprocess
import sys

FIRST_AT_ONCE = """
import sys, threading
from headwater.online.published import decode_published

sys.setswitchinterval(1e-6)
barrier, found = threading.Barrier(4), []

def first():
    barrier.wait()
    found.append(decode_published(b'{"id":"1","plan":{"project":"x"},"active":{}}'))

threads = [threading.Thread(target=first) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == found[:1] * 4, found
"""


def test_the_first_decoding_in_several_threads_ends_no_process():
    # msgspec prepares a type when it decodes it first; without the decoders made at import, half of the processes crash.
    for _ in range(8):
        ended = subprocess.run([sys.executable, "-c", FIRST_AT_ONCE], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr or ended.returncode
