//! Colours in light and dark, and text drawing.

use plotters::prelude::{DrawingBackend, IntoFont, RGBColor, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::area::{Area, Drawn};

/// A light colour and its dark counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shade {
    light: (u8, u8, u8),
    dark: (u8, u8, u8),
}

macro_rules! shades {
    ($($name:ident $light:expr, $dark:expr;)*) => {
        $(pub const $name: Shade = Shade { light: $light, dark: $dark };)*
        const ALL: &[Shade] = &[$($name),*];
    };
}

// Light colours are distinct, because the dark style selects elements by them.
shades! {
    BACKGROUND (255, 255, 255), (13, 17, 23);
    INK (31, 35, 40), (230, 237, 243);
    DIM (89, 99, 110), (173, 186, 199);
    GRID (218, 223, 229), (48, 54, 61);
    MAIN (9, 105, 218), (88, 166, 255);
    GOOD (26, 127, 55), (63, 185, 80);
    BAD (207, 34, 46), (255, 123, 114);
    CALM (110, 60, 190), (188, 140, 255);
    WARM (188, 76, 0), (240, 150, 70);
    SOFT (160, 40, 110), (245, 120, 190);
}

impl Shade {
    /// Returns the light colour.
    pub const fn colour(self) -> RGBColor {
        RGBColor(self.light.0, self.light.1, self.light.2)
    }
}

/// Converts a text size in pixels into plotters' size. plotters writes text smaller by this factor,
/// since its sizes are those of a bitmap font.
pub fn pixels(size: i32) -> f64 {
    f64::from(size) * 1.24
}

/// Draws a text from its upper left corner.
pub fn text<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    at: (i32, i32),
    size: i32,
    shade: Shade,
) -> Drawn<DB> {
    let style = ("sans-serif", pixels(size)).into_font().color(&shade.colour());
    area.draw(&Text::new(text.to_owned(), at, style.pos(Pos::new(HPos::Left, VPos::Top))))
}

/// Adds a style for readers who prefer dark.
pub fn with_dark(svg: &str) -> String {
    let hex = |(red, green, blue): (u8, u8, u8)| format!("#{red:02X}{green:02X}{blue:02X}");
    let rules = ALL.iter().map(|shade| {
        let (light, dark) = (hex(shade.light), hex(shade.dark));
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}\n")
    });
    let rules = rules.collect::<Vec<_>>().concat();
    let style = format!(
        "<style>\ntext{{font-family:system-ui,sans-serif}}\n@media (prefers-color-scheme:dark){{\n{rules}}}\n</style>\n"
    );
    // After the first tag.
    match svg.find("<svg").and_then(|begin| Some(begin + svg[begin..].find('>')? + 1)) {
        Some(at) => format!("{}\n{style}{}", &svg[..at], svg[at..].trim_start()),
        None => svg.to_owned(),
    }
}
