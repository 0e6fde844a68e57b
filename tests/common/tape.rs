//! Numbers that are the same in each run.

/// Numbers that follow from a seed.
#[derive(Debug)]
pub struct Tape(u64);

impl Tape {
    pub fn new(seed: u64) -> Self {
        let mut tape = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first ones are too much alike.
        let _ = [(); 8].map(|()| tape.below(2));
        tape
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    pub fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }
}
