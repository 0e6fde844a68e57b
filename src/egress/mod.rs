//! The way out: releases are encoded and given to their destinations until each has confirmed them. There is one module
//! for each kind of destination.

pub mod budget;
pub mod delivery;
pub mod encode;
pub mod file;
pub mod kafka;
