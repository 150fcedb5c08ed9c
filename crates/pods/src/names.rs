//! Names that are taken: no two pods, and no two containers of a pod, have the same.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

pub(crate) struct Names<N, I> {
    taken: Mutex<HashMap<N, I>>,
}

impl<N, I> Default for Names<N, I> {
    fn default() -> Self {
        Self { taken: Mutex::default() }
    }
}

impl<N: Eq + Hash + Clone, I: Clone + PartialEq> Names<N, I> {
    /// Takes the name for `id`, or says who has it.
    pub(crate) fn reserve(&self, name: &N, id: &I) -> Result<(), I> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get(name) {
            Some(by) => Err(by.clone()),
            None => {
                taken.insert(name.clone(), id.clone());
                Ok(())
            }
        }
    }

    /// Gives the name back, if it is `id` that has it.
    pub(crate) fn release(&self, name: &N, id: &I) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(name) == Some(id) {
            taken.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_until_that_one_gives_it_back() {
        let names = Names::default();
        assert_eq!(names.reserve(&"a", &1), Ok(()));
        assert_eq!(names.reserve(&"a", &2), Err(1));
        names.release(&"a", &2);
        assert_eq!(names.reserve(&"a", &2), Err(1));
        names.release(&"a", &1);
        assert_eq!(names.reserve(&"a", &2), Ok(()));
    }
}
