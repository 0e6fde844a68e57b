"""What goes over a network: a capture of everything on its bridge."""

import subprocess

from engine import Failed, until

# What only released cells say: a capture without it saw nothing.
RELEASED = (b'"window_start"', b'"payments_by_country"')


class Capture:
    """Everything that goes over an interface, as tcpdump sees it, in a file."""

    def __init__(self, interface, file):
        self.file = file
        self.process = subprocess.Popen(
            ["tcpdump", "-i", interface, "-w", str(file), "-U", "-B", "65536", "-s", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: file.exists() and file.stat().st_size or self.process.poll() is not None, "tcpdump captures")

    def stop(self):
        """Ends the capture. Raises Failed when it missed anything."""
        self.process.terminate()
        said = self.process.communicate(timeout=30)[1]
        if "0 packets dropped by kernel" not in said:
            raise Failed(f"the capture is not whole: {said}")

    def found(self, texts):
        """Which of the texts went over the network."""
        bytes_seen = self.file.read_bytes()
        return [text for text in texts if text in bytes_seen]
