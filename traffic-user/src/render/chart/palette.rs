//! The colours of pictures. They are those of the web page (`web/style.css`), which a test compares.

use clap::ValueEnum;

use super::Hue;

/// A colour: red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Colours of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Theme {
    /// Dark on white
    #[default]
    Light,
    /// Light on black
    Dark,
}

/// All colours of a theme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Palette {
    pub panel: Rgb,
    pub text: Rgb,
    pub muted: Rgb,
    pub grid: Rgb,
    pub axis: Rgb,
    pub incoming: Rgb,
    pub outgoing: Rgb,
    /// Where traffic is missing. Drawn over what is there, at [`Palette::gap_opacity`].
    pub gap: Rgb,
    pub gap_opacity: f32,
    classes: [Rgb; 9],
}

impl Palette {
    pub const fn of(theme: Theme) -> Self {
        match theme {
            Theme::Light => LIGHT,
            Theme::Dark => DARK,
        }
    }

    /// The colour of a part. Class 0 is grey; the others take turns.
    pub fn hue(&self, hue: Hue) -> Rgb {
        match hue {
            Hue::Incoming => self.incoming,
            Hue::Outgoing => self.outgoing,
            Hue::Class(0) => self.classes[0],
            Hue::Class(class) => self.classes[usize::from(class - 1) % (self.classes.len() - 1) + 1],
        }
    }
}

const LIGHT: Palette = Palette {
    panel: [0xff, 0xff, 0xff],
    text: [0x1b, 0x23, 0x2c],
    muted: [0x56, 0x64, 0x72],
    grid: [0xe8, 0xed, 0xf1],
    axis: [0x75, 0x82, 0x8f],
    incoming: [0x0b, 0x7a, 0x8a],
    outgoing: [0xa3, 0x43, 0x8f],
    gap: [179, 38, 30],
    gap_opacity: 0.26,
    classes: [
        [0x8a, 0x94, 0x9e],
        [0x2f, 0x7f, 0xc1],
        [0xcc, 0x6a, 0x1a],
        [0x1f, 0x8f, 0x6b],
        [0xb7, 0x55, 0x9b],
        [0x91, 0x7a, 0x00],
        [0x6b, 0x5f, 0xc7],
        [0xb3, 0x47, 0x3f],
        [0x4b, 0x8a, 0x2f],
    ],
};

const DARK: Palette = Palette {
    panel: [0x18, 0x1f, 0x26],
    text: [0xe3, 0xe9, 0xef],
    muted: [0x9a, 0xa8, 0xb5],
    grid: [0x23, 0x2c, 0x35],
    axis: [0x74, 0x83, 0x91],
    incoming: [0x45, 0xb8, 0xc8],
    outgoing: [0xd9, 0x87, 0xc6],
    gap: [255, 110, 100],
    gap_opacity: 0.3,
    classes: [
        [0x78, 0x84, 0x8f],
        [0x54, 0x9f, 0xdd],
        [0xe4, 0x8a, 0x3f],
        [0x3f, 0xb2, 0x8b],
        [0xd2, 0x7f, 0xba],
        [0xc3, 0xaa, 0x33],
        [0x9a, 0x8f, 0xec],
        [0xdf, 0x7a, 0x72],
        [0x7a, 0xb9, 0x5c],
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The hexadecimal colours of the page under their names: those of the light theme come first.
    fn of_page(name: &str, theme: Theme) -> Rgb {
        let style = include_str!("../../../web/style.css");
        let start = format!("--{name}: #");
        let mut found = style.split(&start).skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            let long: String = match digits.len() {
                3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
                _ => digits,
            };
            let number = u32::from_str_radix(&long, 16).unwrap();
            let [_, rgb @ ..] = number.to_be_bytes();
            rgb
        });
        found.nth(if theme == Theme::Light { 0 } else { 1 }).unwrap_or_else(|| panic!("{name} {theme:?}"))
    }

    #[test]
    fn the_colours_are_those_of_the_web_page() {
        for theme in [Theme::Light, Theme::Dark] {
            let palette = Palette::of(theme);
            let named = [
                ("panel", palette.panel),
                ("text", palette.text),
                ("muted", palette.muted),
                ("grid", palette.grid),
                ("axis", palette.axis),
                ("in", palette.incoming),
                ("out", palette.outgoing),
            ];
            for (name, colour) in named {
                assert_eq!(colour, of_page(name, theme), "{name} {theme:?}");
            }
            for (class, colour) in palette.classes.iter().enumerate() {
                assert_eq!(*colour, of_page(&format!("class-{class}"), theme), "class {class} {theme:?}");
            }
            assert_eq!(palette.hue(Hue::Class(9)), palette.hue(Hue::Class(1)));
        }
    }
}
