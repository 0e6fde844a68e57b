//! What to write instead of a name that nobody knows.

/// Names that are longer are not compared, nor values quoted. No more names are compared than this: it takes long.
pub(super) const COMPARED_BYTES_MAX: usize = 64;
const COMPARED_MAX: usize = 500;
/// The most names that are listed.
const LISTED_MAX: usize = 40;
/// Names of a greater distance are not alike.
const DISTANCE_MAX: usize = 2;

/// "did you mean", or what there is to choose from.
#[must_use]
pub fn hint(name: &str, known: &[&str]) -> String {
    hint_of(name, known.iter().copied())
}

/// The same for names that are not in a list: no more of them are looked at than are compared.
#[must_use]
pub fn hint_of<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let mut names = known.into_iter();
    let known: Vec<&str> = names.by_ref().take(COMPARED_MAX).collect();
    let length = name.chars().count();
    let is_near = |known: &&&str| {
        name.len().max(known.len()) <= COMPARED_BYTES_MAX && known.chars().count().abs_diff(length) <= DISTANCE_MAX
    };
    let near = known.iter().filter(is_near).map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= DISTANCE_MAX && distance < name.len() => {
            format!("did you mean `{known}`?")
        }
        _ if known.is_empty() => "there is nothing to choose from".to_owned(),
        _ => {
            let listed = known.get(..LISTED_MAX).unwrap_or(&known).join(", ");
            let more = if known.len() > LISTED_MAX || names.next().is_some() { ", ..." } else { "" };
            format!("known here: {listed}{more}")
        }
    }
}
