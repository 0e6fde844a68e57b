use bailiwick::domain::policy::Released;

fn forge(other: Released) -> Released {
    Released { destination: String::from("elsewhere"), ..other }
}

fn main() {}
