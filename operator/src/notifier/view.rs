//! Which images of an item a spec needs, and whether the stream has them.

use super::error::InvalidSpec;
use super::expression::Expression;
use super::syntax::Variable;

/// An image of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    Old,
    New,
}

/// What the images are needed for.
#[derive(Debug)]
pub(super) struct Needs {
    needs: Vec<(Image, String, &'static str)>,
}

impl Needs {
    /// What the expressions and `attribute` need; an attribute is compared only if a change can
    /// have both images.
    pub(super) fn new<'a>(
        attribute: bool,
        compares: bool,
        expressions: impl Iterator<Item = &'a Expression>,
    ) -> Self {
        let mut needs = Vec::new();
        if attribute {
            let why = if compares {
                "compares the old with the new value"
            } else {
                "looks at the new value"
            };
            needs.push((Image::New, "attribute".to_owned(), why));
            if compares {
                needs.push((Image::Old, "attribute".to_owned(), why));
            }
        }
        for expression in expressions {
            let field = || expression.field().to_owned();
            if expression.uses().contains(&Variable::New) {
                needs.push((Image::New, field(), "uses `new`"));
            }
            if expression.uses().contains(&Variable::Old) {
                needs.push((Image::Old, field(), "uses `old`"));
            }
        }
        Self { needs }
    }

    /// The first need that a stream of this view type does not meet.
    pub(super) fn check(&self, old: bool, new: bool, view: &str) -> Result<(), InvalidSpec> {
        let has = |image| match image {
            Image::Old => old,
            Image::New => new,
        };
        let Some((_, field, why)) = self.needs.iter().find(|(image, ..)| !has(*image)) else {
            return Ok(());
        };
        let needed = |wanted| self.needs.iter().any(|(image, ..)| *image == wanted);
        let wanted = match (needed(Image::Old), needed(Image::New)) {
            (true, true) => "NEW_AND_OLD_IMAGES",
            (true, false) => "OLD_IMAGE or NEW_AND_OLD_IMAGES",
            _ => "NEW_IMAGE or NEW_AND_OLD_IMAGES",
        };
        let problem = format!(
            "{why}, but the stream's view type is {view}: enable a stream with the view type \
             {wanted}, or leave this out"
        );
        Err(InvalidSpec::new(field.clone(), &problem))
    }
}
