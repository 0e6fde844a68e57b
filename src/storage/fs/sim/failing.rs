//! What fails, and how often.

/// How often something fails.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) enum Failing {
    #[default]
    Never,
    Once,
    Always,
}

impl Failing {
    /// Whether it fails this time.
    pub(super) fn fails(&mut self) -> bool {
        let fails = *self != Self::Never;
        if *self == Self::Once {
            *self = Self::Never;
        }
        fails
    }
}
