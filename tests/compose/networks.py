"""Networks without Docker: a namespace for each service, and one that holds a bridge for each network. None of them leads out of
the machine, and none is seen by the machine's own rules."""

from engine import CannotStart, Failed, run


class Networks:
    """The networks of one run, by the names that docker-compose.yml gives them."""

    def __init__(self, prefix, names):
        self.prefix, self.names = prefix, list(names)
        self.joined = {}  # (service, network) -> its place on the network
        self.spaces = []
        self.switch = self._space("switch")
        for name in self.names:
            run("ip", "-n", self.switch, "link", "add", name, "type", "bridge")
            run("ip", "-n", self.switch, "link", "set", name, "up")

    def _space(self, name):
        space = f"{self.prefix}-{name}"
        done = run("ip", "netns", "add", space, check=False)
        if done.returncode:
            raise CannotStart(f"no network namespace can be made here: {done.stderr.strip()}")
        self.spaces.append(space)
        run("ip", "-n", space, "link", "set", "lo", "up")
        return space

    def add(self, service, networks):
        """A namespace for a service, with an interface on each of its networks."""
        space = self._space(service)
        for network in networks:
            place = self.joined[service, network] = 2 + len(self.joined)
            port = f"port-{place}"
            run("ip", "link", "add", network, "netns", space, "type", "veth", "peer", "name", port, "netns", self.switch)
            run("ip", "-n", self.switch, "link", "set", port, "master", network, "up")
            run("ip", "-n", space, "address", "add", f"{self.address(service, network)}/24", "dev", network)
            run("ip", "-n", space, "link", "set", network, "up")

    def address(self, service, network):
        """A service's address on a network."""
        return f"10.77.{self.names.index(network)}.{self.joined[service, network]}"

    def addresses(self, service):
        """All addresses of a service."""
        return [self.address(service, network) for known, network in self.joined if known == service]

    def plug(self, service, network, is_in):
        """Pulls a service's plug out of a network, or puts it in again."""
        if (service, network) not in self.joined:
            raise Failed(f"{service} is not on {network}")
        run("ip", "-n", self.switch, "link", "set", f"port-{self.joined[service, network]}", "up" if is_in else "down")

    def inside(self, service):
        """What runs a command in a service's namespace, with mounts of its own."""
        return ["ip", "netns", "exec", f"{self.prefix}-{service}"]

    def close(self):
        """Removes everything."""
        for space in self.spaces:
            run("ip", "netns", "del", space, check=False)
        self.spaces.clear()
        self.joined.clear()
