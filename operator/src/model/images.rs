//! Images of an item that the records of a stream contain, and images that a spec requires.

use std::fmt;

/// Images that the records of a stream contain. They cannot change after the stream is created.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_StreamSpecification.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewType {
    /// Keys only.
    KeysOnly,
    /// Keys and the item after the change.
    NewImage,
    /// Keys and the item before the change.
    OldImage,
    /// Keys and both images.
    NewAndOldImages,
}

impl ViewType {
    /// Whether records contain this image.
    pub fn has(self, image: Image) -> bool {
        match image {
            Image::Old => matches!(self, Self::OldImage | Self::NewAndOldImages),
            Image::New => matches!(self, Self::NewImage | Self::NewAndOldImages),
        }
    }

    /// The value of `StreamViewType` in the AWS API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }
}

/// An image of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The item before the change.
    Old,
    /// The item after the change.
    New,
}

/// Images that a spec requires, each with the field that requires it and the field's use of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredImages(Vec<(Image, String, &'static str)>);

/// A field requires an image that the stream's records lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingImage {
    /// The field of the spec, such as `message.value`.
    pub field: String,
    /// The field's use of the image, and the view types that contain it.
    pub problem: String,
}

impl fmt::Display for MissingImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl RequiredImages {
    /// Adds an image that `field` requires. `usage` completes the sentence that begins with the
    /// field, such as "looks at the new value".
    pub fn require(&mut self, image: Image, field: String, usage: &'static str) {
        self.0.push((image, field, usage));
    }

    /// The first requirement that a stream with this view type does not meet.
    pub fn missing_from(&self, view: ViewType) -> Option<MissingImage> {
        let (_, field, usage) = self.0.iter().find(|(image, ..)| !view.has(*image))?;
        let requires = |required| self.0.iter().any(|(image, ..)| *image == required);
        let view_types = match (requires(Image::Old), requires(Image::New)) {
            (true, true) => "NEW_AND_OLD_IMAGES",
            (true, false) => "OLD_IMAGE or NEW_AND_OLD_IMAGES",
            _ => "NEW_IMAGE or NEW_AND_OLD_IMAGES",
        };
        let problem = format!(
            "{usage}, but the stream's view type is {}; enable a stream with the view type \
             {view_types}, or remove this field",
            view.as_str()
        );
        Some(MissingImage { field: field.clone(), problem })
    }
}
