# SPDX-License-Identifier: Apache-2.0
"""What type variables of a kernel have that tools read: it tells its types, but of few variables which is theirs.

In C's words, as they are declared: ``struct net``, ``char *``, ``struct fb_info * [32]``. ``[]`` are as many as there
is room for until the next symbol, ``[0]`` is where something begins. ``{a b}`` is the structure without a name whose
first members these are; of several types, separated by ``|``, the first that the kernel has is taken.
"""

from __future__ import annotations

_NAMES = {
    "atomic64_t": "_totalram_pages nr_swap_pages",
    "atomic64_t []": "vm_node_stat vm_numa_event vm_zone_stat",
    "char *": "log_buf saved_command_line",
    "char * []": "task_state_array",
    "char [0]": "__init_begin __init_end _edata _end _etext _sdata _stext _text",
    "gate_desc [256]": "idt_table",
    "int": "cap_last_cap hugetlb_max_hstate ipc_mni_shift nr_irqs num_registered_fb sections_per_block "
    "sysctl_overcommit_ratio total_nr_irqs",
    "int [0]": "__start___tracepoints_ptrs __stop___tracepoints_ptrs kallsyms_offsets",
    "long int": "total_swap_pages",
    "long long unsigned int": "jiffies_64",
    "long unsigned int": "__highest_present_section_nr high_memory jiffies kallsyms_relative_base max_low_pfn max_pfn "
    "min_low_pfn module_addr_max module_addr_min page_offset_base phys_base pidhash_shift sysctl_overcommit_kbytes "
    "tainted_mask vmalloc_base vmemmap_base",
    "long unsigned int [0]": "avenrun",
    "long unsigned int []": "__per_cpu_offset",
    "nodemask_t []": "node_states",
    "pgd_t [0]": "init_level4_pgt init_top_pgt swapper_pg_dir",
    "short unsigned int [0]": "kallsyms_token_index",
    "struct address_space * [0]": "swapper_spaces",
    "struct atomic_notifier_head": "keyboard_notifier_list",
    "struct bus_type": "memory_subsys pci_bus_type",
    "struct cgroup_root": "cgrp_dfl_root",
    "struct class": "block_class",
    "struct cpumask": "__cpu_active_mask __cpu_online_mask __cpu_possible_mask __cpu_present_mask",
    "struct cred": "init_cred",
    "struct dentry_operations": "sockfs_dentry_operations",
    "struct fb_info * [32]": "registered_fb",
    "struct file_operations": "ns_file_operations socket_file_ops",
    "struct files_struct": "init_files",
    "struct fs_struct": "init_fs userspace_init_fs",
    "struct ftrace_ops": "ftrace_list_end",
    "struct ftrace_ops *": "ftrace_ops_list",
    "struct hlist_head *": "inode_hashtable",
    "struct hlist_head []": "uidhash_table",
    "struct hstate []": "hstates",
    "struct idr": "btf_idr link_idr map_idr prog_idr",
    "struct ipc_namespace": "init_ipc_ns",
    "struct kernfs_node *": "sysfs_root_kn",
    "struct kmem_cache *": "task_struct_cachep",
    "struct kobj_map *": "cdev_map",
    "struct kobj_type": "bus_ktype class_ktype device_ktype driver_ktype module_ktype",
    "struct kset *": "bus_kset class_kset module_kset slab_kset",
    "struct latch_tree_root": "bpf_tree",
    "struct list_head": "all_bdis bpf_kallsyms crypto_alg_list ftrace_mod_maps ftrace_ops_trampoline_list modules "
    "net_namespace_list pci_root_buses pernet_list proto_list slab_caches super_blocks tty_drivers vmap_area_list "
    "workqueues",
    "struct mem_section * *": "mem_section",
    "struct memblock": "memblock",
    "struct mm_struct": "init_mm",
    "struct mod_tree_root": "mod_tree",
    "struct net": "init_net",
    "struct nsproxy": "init_nsproxy",
    "struct page *": "mem_map",
    "struct percpu_counter": "vm_committed_as",
    "struct pglist_data": "contig_page_data",
    "struct pglist_data * [0]": "node_data",
    "struct pid_namespace": "init_pid_ns",
    "struct printk_ringbuffer *": "prb",
    "struct rb_root": "vmap_area_root",
    "struct resource": "iomem_resource ioport_resource",
    "struct seq_operations": "arp_seq_ops packet_seq_ops raw6_seq_ops raw_seq_ops tcp4_seq_ops tcp6_seq_ops "
    "tcp_seq_ops udp6_seq_ops udp_seq_ops unix_seq_ops",
    "struct super_block *": "blockdev_superblock",
    "struct swap_info_struct * [0]": "swap_info",
    "struct taint_flag []": "taint_flags",
    "struct task_group": "root_task_group",
    "struct task_struct": "init_task",
    "struct tcp_seq_afinfo": "tcp4_seq_afinfo tcp6_seq_afinfo",
    "struct time_namespace": "init_time_ns",
    "struct timekeeper": "timekeeper",
    "struct timespec": "total_sleep_time wall_to_monotonic",
    "struct tk_data | {seq timekeeper}": "tk_core",
    "struct tk_data []": "timekeeper_data",
    "struct udp_seq_afinfo": "udp4_seq_afinfo udp6_seq_afinfo udplite4_seq_afinfo udplite6_seq_afinfo",
    "struct user_namespace": "init_user_ns",
    "struct uts_namespace": "init_uts_ns",
    "struct vmap_node *": "vmap_nodes",
    "struct xarray | struct radix_tree_root": "irq_desc_tree",
    "unsigned char [0]": "kallsyms_names kallsyms_seqs_of_names kallsyms_token_table",
    "unsigned int": "kallsyms_markers kallsyms_num_syms log_buf_len log_end log_first_idx log_next_idx nr_cpu_ids "
    "nr_node_ids nr_swapfiles",
    "unsigned int [0]": "nr_swapper_spaces",
    "void *": "hardirq_stack_ptr",
    "void * [0]": "ia32_sys_call_table sys_call_table x32_sys_call_table",
}
"""By type, as many have the same."""

VARIABLES = {name: declared for declared, names in _NAMES.items() for name in names.split()}
"""The type of a variable by its name."""
