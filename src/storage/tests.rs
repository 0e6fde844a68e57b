//! Tests of the log as a whole. The simulated file system loses whatever it may.

mod cuts;
mod exhaustive;
mod freeing;
mod full;
mod model;
mod planted;
mod presence;
mod real;
mod reference;
mod repair;
mod slots;
mod world;
