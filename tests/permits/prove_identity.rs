use bailiwick::identity::Identity;

fn prove() -> Identity {
    Identity::proved("spiffe://corp.example/office", i64::MAX)
}

fn default() -> Identity {
    Identity::default()
}

fn main() {}
