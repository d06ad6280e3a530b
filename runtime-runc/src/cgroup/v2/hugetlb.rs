//! `hugetlb`: huge pages by size.

use std::path::Path;

use oci_spec::runtime::LinuxHugepageLimit;

use super::super::{error::Result, file};

/// Sets each limit, and the same for reservations where the kernel has that (5.7).
pub fn set(dir: &Path, limits: &[LinuxHugepageLimit]) -> Result<()> {
    for limit in limits {
        let size = limit.page_size();
        file::write(dir, &format!("hugetlb.{size}.max"), limit.limit())?;
        file::optional(file::write(dir, &format!("hugetlb.{size}.rsvd.max"), limit.limit()))?;
    }
    Ok(())
}
