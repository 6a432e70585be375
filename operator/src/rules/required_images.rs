//! Derives the item images that a spec requires from its expressions and `attribute`.

use super::error::one_line;
use crate::model::{Image, RequiredImages};
use crate::rules::cel::expression::Expression;
use crate::rules::cel::instrument::Variable;

/// The images that the expressions and `attribute` use. With `compares_images`, `attribute`
/// requires both, because the spec matches records that have both.
pub(crate) fn required_images<'a>(
    has_attribute: bool,
    compares_images: bool,
    expressions: impl Iterator<Item = &'a Expression>,
) -> RequiredImages {
    let mut images = RequiredImages::default();
    let attribute = || "attribute".to_owned();
    if has_attribute && compares_images {
        let does = "compares the old value with the new value";
        images.require(Image::New, attribute(), does);
        images.require(Image::Old, attribute(), does);
    } else if has_attribute {
        images.require(Image::New, attribute(), "uses the new value");
    }
    for expression in expressions {
        for (variable, image, does) in
            [(Variable::New, Image::New, "uses `new`"), (Variable::Old, Image::Old, "uses `old`")]
        {
            if expression.variables().contains(&variable) {
                images.require(image, one_line(expression.field()), does);
            }
        }
    }
    images
}
