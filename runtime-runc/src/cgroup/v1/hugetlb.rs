//! `hugetlb`: huge pages by size. Source: cgroup-v1/hugetlb.rst.

use std::path::Path;

use oci_spec::runtime::LinuxHugepageLimit;

use super::super::{error::Result, file};

/// Sets each limit, and the same for reservations where the kernel has that (5.7).
pub fn set(dir: &Path, limits: &[LinuxHugepageLimit]) -> Result<()> {
    for limit in limits {
        let size = limit.page_size();
        file::write(dir, &format!("hugetlb.{size}.limit_in_bytes"), limit.limit())?;
        file::optional(file::write(
            dir,
            &format!("hugetlb.{size}.rsvd.limit_in_bytes"),
            limit.limit(),
        ))?;
    }
    Ok(())
}
