//! What a picture consists of: filled rectangles and texts, in the order in which they are drawn. SVG and PNG
//! are made from the same.

use super::palette::Rgb;

/// Where a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Lengths in pixels from the left and from the top. The place of a text is on its base line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Rect { x: f32, y: f32, width: f32, height: f32, colour: Rgb, opacity: f32 },
    Text { x: f32, y: f32, size: f32, anchor: Anchor, colour: Rgb, text: String },
}

/// A picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scene {
    pub width: f32,
    pub height: f32,
    pub shapes: Vec<Shape>,
}

impl Scene {
    pub fn rect(&mut self, (x, y, width, height): (f32, f32, f32, f32), colour: Rgb) {
        self.shapes.push(Shape::Rect { x, y, width, height, colour, opacity: 1.0 });
    }

    pub fn veil(&mut self, (x, y, width, height): (f32, f32, f32, f32), colour: Rgb, opacity: f32) {
        self.shapes.push(Shape::Rect { x, y, width, height, colour, opacity });
    }

    pub fn text(&mut self, (x, y): (f32, f32), anchor: Anchor, (size, colour): (f32, Rgb), text: &str) {
        self.shapes.push(Shape::Text { x, y, size, anchor, colour, text: text.to_owned() });
    }
}
