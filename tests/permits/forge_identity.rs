use bailiwick::identity::Identity;

fn forge() -> Identity {
    Identity { text: "spiffe://corp.example/office".into(), until: i64::MAX }
}

fn main() {}
