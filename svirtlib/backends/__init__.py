"""The only package that touches the system.

Each module owns one way in: ``_libvirt`` the libvirt bindings, ``_selinux`` libselinux's,
``_procfs`` the processes, ``_files`` the images, ``_documents`` folders of XML. The bindings
are imported where they are used, so that what needs none of them works without them.
"""
