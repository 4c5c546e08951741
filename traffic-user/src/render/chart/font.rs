//! The letters of pictures: a part of DejaVu Sans (`assets/`), with the letters of Latin, Greek and Cyrillic.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, GlyphId, OutlinedGlyph, PxScale, ScaleFont as _, point};

/// The file. Its licence is beside it.
const FILE: &[u8] = include_bytes!("../../../assets/dejavu-sans-part.ttf");

/// `None` if the file is damaged, which a test excludes.
static FONT: LazyLock<Option<FontRef<'static>>> = LazyLock::new(|| FontRef::try_from_slice(FILE).ok());

/// What stands for a letter that the font does not have.
const UNKNOWN: char = '\u{fffd}';

/// The scale at which an em has so many pixels. A font's own height is not its em.
fn scale(font: &FontRef<'_>, size: f32) -> PxScale {
    let em = font.units_per_em().unwrap_or(1000.0);
    PxScale::from(size * font.height_unscaled() / em)
}

fn glyph(font: &FontRef<'_>, c: char) -> GlyphId {
    let id = font.glyph_id(c);
    if id.0 == 0 { font.glyph_id(UNKNOWN) } else { id }
}

/// The width of a text in pixels, at this many pixels an em.
pub(super) fn width(text: &str, size: f32) -> f32 {
    let Some(font) = &*FONT else { return 0.0 };
    let scaled = font.as_scaled(scale(font, size));
    text.chars().map(|c| scaled.h_advance(glyph(font, c))).sum()
}

/// The outlines of a text whose base line begins at a place.
pub(super) fn outlines(text: &str, size: f32, (x, y): (f32, f32)) -> Vec<OutlinedGlyph> {
    let Some(font) = &*FONT else { return Vec::new() };
    let scale = scale(font, size);
    let scaled = font.as_scaled(scale);
    let mut at = x;
    let mut all = Vec::new();
    for c in text.chars() {
        let id = glyph(font, c);
        all.extend(font.outline_glyph(id.with_scale_and_position(scale, point(at, y))));
        at += scaled.h_advance(id);
    }
    all
}

/// A text that is at most this wide.
pub(super) fn fitted(text: &str, size: f32, most: f32) -> String {
    if width(text, size) <= most {
        return text.to_owned();
    }
    let mut letters: Vec<char> = text.chars().collect();
    while !letters.is_empty() {
        letters.remove(letters.len() / 2);
        let mut short = letters.clone();
        short.insert(letters.len() / 2, '\u{2026}');
        let short: String = short.into_iter().collect();
        if width(&short, size) <= most {
            return short;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_letters_digits_and_a_substitute() {
        let font = FONT.as_ref().unwrap();
        for c in "AZaz09.,:-%!\u{2026}\u{fffd}\u{e4}\u{416}\u{3a9}".chars() {
            assert_ne!(font.glyph_id(c).0, 0, "{c:?}");
        }
        assert_eq!(glyph(font, '\u{4f60}'), font.glyph_id(UNKNOWN));
        // DejaVu's digits are all 0.636 em wide.
        assert!((width("00", 100.0) - 127.2).abs() < 0.5, "{}", width("00", 100.0));
        assert_eq!(outlines("i j", 12.0, (0.0, 10.0)).len(), 2);
    }

    #[test]
    fn a_long_text_loses_its_middle() {
        let short = fitted("0123456789", 10.0, 40.0);
        assert!(width(&short, 10.0) <= 40.0 && short.starts_with("01") && short.ends_with('9'), "{short}");
        assert_eq!(fitted("ab", 10.0, 100.0), "ab");
        assert_eq!(fitted("ab", 10.0, 0.0), "");
    }
}
