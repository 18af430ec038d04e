//! Bugs that can be planted: one rule taken out, to show that somebody notices it.

/// Makes a crate's `Mutant`: its variants, each with the rule that it takes out; `Mutant::is_planted`, to be asked at the line
/// that keeps the rule; `Mutant::plant`, and `Mutant::plant_named` for command lines. With the feature `mutants`, and in the
/// crate's own tests, one of them is planted on this thread; otherwise the compiler sees that none ever is.
#[macro_export]
macro_rules! mutants {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// A bug that can be planted. Each takes out one rule, at the line that keeps it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $($(#[$about])* $name,)*
        }

        #[cfg(any(test, feature = "mutants"))]
        thread_local! {
            static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
        }

        impl Mutant {
            /// Whether this bug is planted.
            #[inline]
            pub(crate) fn is_planted(self) -> bool {
                #[cfg(any(test, feature = "mutants"))]
                return PLANTED.get() == Some(self);
                #[cfg(not(any(test, feature = "mutants")))]
                false
            }

            /// Plants a bug on this thread, or takes it back.
            #[cfg(any(test, feature = "mutants"))]
            pub fn plant(mutant: Option<Self>) {
                PLANTED.set(mutant);
            }

            /// Plants a bug on this thread, by the name of its variant; whether there is such a one.
            #[cfg(any(test, feature = "mutants"))]
            pub fn plant_named(name: &str) -> bool {
                let named = match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                };
                Self::plant(named);
                named.is_some()
            }

            /// Whether a test that passes fails with this bug planted.
            #[cfg(any(test, feature = "mutants"))]
            pub fn is_noticed_by(self, test: fn()) -> bool {
                test();
                Self::plant(Some(self));
                let noticed = std::panic::catch_unwind(test).is_err();
                Self::plant(None);
                noticed
            }
        }
    };
}
