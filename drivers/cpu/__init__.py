"""The processor as a device: LLVM and CLANG, which differ only in who compiles kernels."""
