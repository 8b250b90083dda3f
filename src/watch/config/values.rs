//! Values in a file of rules: strings as on the command line, or plain numbers where those mean the
//! same.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::duration::parse_duration;
use crate::kind::{self, Kind};
use crate::size::{self, Amount, Percent};

/// A value that is parsed from a string.
trait Word: Sized {
    /// Description of the expected value, for error messages.
    const EXPECTED: &'static str;

    fn read(word: &str) -> Result<Self, String>;
}

struct Reading<T>(std::marker::PhantomData<T>);

impl<T: Word> Visitor<'_> for Reading<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        T::read(word).map_err(|why| E::custom(format_args!("{word:?}: {why}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $expected:literal, $read:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub $inner);

        impl Word for $name {
            const EXPECTED: &'static str = $expected;

            fn read(word: &str) -> Result<Self, String> {
                let read = $read;
                read(word).map(Self).map_err(|why| why.to_string())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Reading(std::marker::PhantomData))
            }
        }
    )*};
}

words! {
    /// Memory to keep free.
    Headroom(Amount), "a size or a percentage, as in \"64M\" or \"10%\"", size::parse_headroom;
    /// A size in bytes, or 0.
    Size(u64), "a size, as in \"64M\"", size::parse_bytes_or_zero;
    /// A percentage, which may be 0.
    Percentage(Percent), "a percentage, as in \"25%\"", str::parse::<Percent>;
    /// A percentage above 0.
    Share(Percent), "a percentage, as in \"0.1%\"", size::parse_some_percent;
    /// A time above 0.
    Time(Duration), "a duration, as in \"60s\"", parse_duration;
    /// A rate in bytes per second, or no limit.
    Bound(Option<u64>), "a size, or \"max\"", size::parse_bytes_or_max;
    /// Kind of memory to reclaim.
    Type(Kind), "all, anon or file", |word| match word {
        "all" => Ok(Kind::All),
        "anon" => Ok(Kind::Anon),
        "file" => Ok(Kind::File),
        _ => Err("must be all, anon or file"),
    };
    /// Weight of anonymous memory against page cache.
    Swappiness(kind::Swappiness), "0 to 200, or \"max\"", str::parse::<kind::Swappiness>;
}

/// One name or glob, or a list of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a glob, or a list of them")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Names, E> {
                Ok(Names(vec![word.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(List)
    }
}
