use bailiwick::domain::name::DestinationName;
use bailiwick::domain::policy::Released;

fn redirect(other: Released, destination: DestinationName) -> Released {
    Released { destination, ..other }
}

fn main() {}
