//! A scene as PNG: rectangles and letters in pixels, and the file around them.
//!
//! The file has one `IHDR`, one `IDAT` and one `IEND` (RFC 2083): eight bits a channel, no transparency.

use std::io::Write as _;

use anyhow::Context as _;
use flate2::{Compression, Crc, write::ZlibEncoder};

use super::{
    font,
    palette::Rgb,
    scene::{Anchor, Scene, Shape},
};

/// Pixels per unit of the scene, so that letters are sharp on any screen.
const SCALE: f32 = 2.0;

/// The file.
pub(super) fn file(scene: &Scene) -> anyhow::Result<Vec<u8>> {
    let canvas = Canvas::draw(scene);
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::best());
    for row in canvas.pixels.chunks(canvas.width.max(1)) {
        // Filter 0: as it is. Flat colours compress well without.
        rows.write_all(&[0]).and_then(|()| rows.write_all(row.as_flattened())).context("cannot compress")?;
    }
    let rows = rows.finish().context("cannot compress")?;
    let size =
        |length: usize| u32::try_from(length).context("the picture is too large").map(u32::to_be_bytes);
    let mut head = [size(canvas.width)?, size(canvas.height)?].concat();
    // Bit depth, colour type RGB, and the only compression, filter and interlacing there are.
    head.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [(b"IHDR", &head), (b"IDAT", &rows), (b"IEND", &Vec::new())] {
        file.extend(size(content.len())?);
        let begin = file.len();
        file.extend(kind);
        file.extend(content);
        let mut sum = Crc::new();
        sum.update(&file[begin..]);
        file.extend(sum.sum().to_be_bytes());
    }
    Ok(file)
}

struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    fn draw(scene: &Scene) -> Self {
        let (width, height) = (pixel(scene.width), pixel(scene.height));
        let mut canvas = Self { width, height, pixels: vec![[255; 3]; width * height] };
        for shape in &scene.shapes {
            match shape {
                Shape::Rect { x, y, width, height, colour, opacity } => {
                    for row in pixel(*y)..pixel(y + height).min(canvas.height) {
                        for column in pixel(*x)..pixel(x + width).min(canvas.width) {
                            canvas.blend((column, row), *colour, *opacity);
                        }
                    }
                }
                Shape::Text { x, y, size, anchor, colour, text } => {
                    let width = font::width(text, *size);
                    let start = match anchor {
                        Anchor::Start => *x,
                        Anchor::Middle => x - width / 2.0,
                        Anchor::End => x - width,
                    };
                    canvas.write(text, (start * SCALE, y * SCALE, size * SCALE), *colour);
                }
            }
        }
        canvas
    }

    fn write(&mut self, text: &str, (x, y, size): (f32, f32, f32), colour: Rgb) {
        for glyph in font::outlines(text, size, (x, y)) {
            let bounds = glyph.px_bounds();
            glyph.draw(|column, row, coverage| {
                #[expect(clippy::cast_precision_loss, reason = "a picture has few pixels")]
                let (column, row) = (bounds.min.x + column as f32, bounds.min.y + row as f32);
                if column >= 0.0 && row >= 0.0 {
                    self.blend((whole(column), whole(row)), colour, coverage);
                }
            });
        }
    }

    /// Draws over a pixel; outside the picture nothing.
    fn blend(&mut self, (column, row): (usize, usize), colour: Rgb, opacity: f32) {
        if column >= self.width || row >= self.height {
            return;
        }
        let opacity = opacity.clamp(0.0, 1.0);
        for (under, over) in self.pixels[row * self.width + column].iter_mut().zip(colour) {
            let mixed = f32::from(*under) * (1.0 - opacity) + f32::from(over) * opacity;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 255")]
            let mixed = mixed.round() as u8;
            *under = mixed;
        }
    }
}

fn pixel(length: f32) -> usize {
    whole((length * SCALE).round())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast stops at the limits")]
fn whole(length: f32) -> usize {
    length.max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_drawn_where_they_are() {
        let mut scene = Scene { width: 4.0, height: 2.0, ..Scene::default() };
        scene.rect((1.0, 0.0, 1.0, 1.0), [10, 20, 30]);
        scene.veil((1.5, 0.0, 9.0, 9.0), [210, 220, 230], 0.5);
        let canvas = Canvas::draw(&scene);
        assert_eq!((canvas.width, canvas.height), (8, 4));
        let row: Vec<_> = canvas.pixels[..8].to_vec();
        let (white, over_white) = ([255; 3], [233, 238, 243]);
        assert_eq!(
            row,
            [white, white, [10, 20, 30], [110, 120, 130], over_white, over_white, over_white, over_white]
        );
    }

    #[test]
    fn a_letter_is_within_its_box() {
        let mut scene = Scene { width: 40.0, height: 20.0, ..Scene::default() };
        scene.text((20.0, 15.0), Anchor::Middle, (10.0, [0; 3]), "H");
        let canvas = Canvas::draw(&scene);
        let dark: Vec<(usize, usize)> = (0..canvas.pixels.len())
            .filter(|&at| canvas.pixels[at][0] < 64)
            .map(|at| (at % canvas.width, at / canvas.width))
            .collect();
        assert!(dark.len() > 20, "{}", dark.len());
        assert!(dark.iter().all(|(x, y)| (30..50).contains(x) && (14..31).contains(y)), "{dark:?}");
    }
}
