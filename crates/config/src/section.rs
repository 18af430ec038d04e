//! Declares a section: the struct that code uses and the table that people meet, from one text.

/// Declares a struct of settings. Of each field: the help (its documentation), name, type, kind with limits, and
/// default as a person would write it.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $title:literal: pub struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $type:ty = $kind:expr, $default:literal;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $(
                $(#[doc = $help])+
                #[doc = concat!("\n\nDefault: `", $default, "`.")]
                pub $field: $type,
            )+
        }

        impl $name {
            /// The settings with what people may write for them.
            pub const SECTION: $crate::Section = $crate::Section {
                title: $title,
                about: concat!($($about),+),
                keys: &[$(
                    $crate::Key {
                        name: stringify!($field),
                        kind: $kind,
                        default: $default,
                        help: concat!($($help),+),
                    },
                )+],
            };

            /// The section with these values.
            pub(crate) fn read(values: &$crate::given::Values) -> Result<Self, $crate::Error> {
                Ok(Self { $($field: values.typed(stringify!($field))?,)+ })
            }
        }
    };
}

pub(crate) use section;
