//! Bugs that can be put back in, to show that the tests and the crash harness notice them.
//!
//! In an ordinary build `planted` is `false` at compile time. With the feature `planted-bugs` the environment
//! variable `BAILIWICK_PLANT` names the one bug to have.

/// Whether the named bug is planted. Never, in this build.
#[cfg(not(any(test, feature = "planted-bugs")))]
pub(crate) const fn planted(_name: &str) -> bool {
    false
}

/// Whether the named bug is planted, by the environment or, in tests, for this thread.
#[cfg(any(test, feature = "planted-bugs"))]
pub(crate) fn planted(name: &str) -> bool {
    use std::sync::LazyLock;
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("BAILIWICK_PLANT").ok());
    #[cfg(test)]
    if for_tests::chosen(name) {
        return true;
    }
    CHOSEN.as_deref() == Some(name)
}

#[cfg(test)]
pub(crate) mod for_tests {
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub(crate) fn chosen(name: &str) -> bool {
        CHOSEN.get() == Some(name)
    }

    /// Plants a bug on this thread until the guard is dropped.
    pub(crate) fn plant(name: &'static str) -> Planted {
        CHOSEN.set(Some(name));
        Planted
    }

    pub(crate) struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            CHOSEN.set(None);
        }
    }
}
