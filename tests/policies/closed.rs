//! A destination that no policy lets anything go to is neither resolved nor connected to: looked at in a network of its own,
//! where each packet that would leave is counted.

use std::env;
use std::process::Command;

use super::deployment::{Deployment, POLICY, Producer, visits};
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{http, until};

/// Set in the process that has a network of its own.
const INSIDE: &str = "BAILIWICK_TEST_NETWORK";

/// A network with one way out, to nobody. What is sent there is counted. Names are asked for over it. The kernel need not ask
/// who has the address of that server: it would go on with that after a process has ended.
const NETWORK: &str = "
set -e
ip link set lo up
ip link add out type veth peer name beyond
for end in out beyond; do echo 1 > /proc/sys/net/ipv6/conf/$end/disable_ipv6; done
ip link set beyond up
ip address add 10.99.0.1/24 dev out
ip link set out up
ip route add default dev out
ip neighbour add 10.99.0.53 lladdr 02:00:00:00:00:53 dev out
names=$(mktemp)
echo 'nameserver 10.99.0.53' > $names
mount --bind $names /etc/resolv.conf
rm $names
exec \"$0\" \"$@\"
";

/// Runs a test of this program again, in a network of its own. Without the right to make one, it says so.
fn in_a_network(test: &str) {
    let unshare = |what: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "--"]).args(what);
        command.output()
    };
    match unshare(&["sh", "-c", NETWORK, "true"]) {
        Ok(made) if made.status.success() => {}
        Ok(made) => return eprintln!("not tested: no network can be made here: {}", text(&made.stderr)),
        Err(error) => return eprintln!("not tested: there is no `unshare`: {error}"),
    }
    let this = env::current_exe().unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--net", "--mount", "--", "sh", "-c", NETWORK]).arg(this);
    let output = inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

/// How many packets have left, as `/proc` says: `/sys` may be of another network.
fn packets() -> u64 {
    let devices = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let out = devices.lines().find_map(|line| line.trim().strip_prefix("out:")).unwrap();
    out.split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_may_go_to_is_neither_resolved_nor_connected_to() {
    if env::var_os(INSIDE).is_none() {
        return in_a_network("policies::closed::what_nothing_may_go_to_is_neither_resolved_nor_connected_to");
    }
    let deployment = Deployment::new();
    let file = "kind         = \"file\"\ndirectory    = \"released/hub\"\nrotate_after = \"PT0S\"\n";
    let kafka = "kind    = \"kafka\"\nbrokers = \"broker.bailiwick.test:9092\"\ntopic   = \"releases\"\n";
    deployment.edit("gateway.toml", file, kafka);
    deployment.add("gateway.toml", "\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let (open, closed) = ("country = \"US\"\naccepts = [\"by_country\"]", "country = \"US\"\naccepts = []");
    deployment.edit(POLICY, open, closed);
    let checked = text(&run(deployment.root(), &["check"]).stdout);
    let said = "neither resolved nor connected to, until a policy lets a dataset go there: hub";
    assert!(checked.contains(said), "{checked}");

    let gateway = deployment.spawn();
    gateway.wait_for("it is neither resolved nor connected to", 1);
    let mut producer = Producer::connect(gateway.endpoint(), "p").await;
    producer.send(&visits(1, 20, "DE")).await;
    producer.close_before(2).await;
    until(|| Some(()).filter(|()| !deployment.released("desk").is_empty()));
    let told = gateway.wait_for("health and metrics are told", 1);
    let address = told.split_once("http=").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let is_told = |says: &str| http::check(&address, "destinations")["says"].as_str().unwrap().contains(says);
    until(|| Some(()).filter(|()| is_told("no policy in force lets anything go to `hub`, so it is not connected to")));
    assert_eq!(packets(), 0, "something was sent: {}", gateway.log().join("\n"));

    // A reload lets a dataset go there: the name is asked for.
    deployment.edit(POLICY, closed, open);
    assert!(gateway.reload().contains("policies are in force"));
    gateway.wait_for("it is connected to", 1);
    until(|| Some(()).filter(|()| packets() > 0));
    producer.send(&visits(2, 20, "DE")).await;
    producer.close_before(3).await;
    until(|| Some(()).filter(|()| deployment.released("desk").len() == 2));

    // And one that takes it back holds what has not left.
    deployment.edit(POLICY, open, closed);
    assert!(gateway.reload().contains("policies are in force"));
    gateway.wait_for("releases wait for the destination from when something could go to it", 1);
    until(|| {
        Some(()).filter(|()| is_told("no policy in force lets anything go to their destination any more: 1 for `hub`"))
    });
    gateway.stop_with_releases_left();
    let before = packets();
    let gateway = deployment.spawn();
    gateway.wait_for("releases wait for the destination from when something could go to it", 1);
    gateway.stop_with_releases_left();
    assert_eq!(packets(), before, "a start has sent something");

    // It is given up where the configuration says so, and nothing is sent for that either.
    deployment.edit("gateway.toml", "topic   = \"releases\"\n", "topic   = \"releases\"\nwhen_denied = \"shed\"\n");
    deployment.spawn().stop();
    let said = entries(&deployment.path("journal/ledger"));
    assert!(of_kind(&said, "denied").iter().any(|denied| denied["destination"] == "hub"));
    assert_eq!(packets(), before, "what is given up is not sent");
}
