# STATIC_LLVM=ON: MOSSC_LLVM becomes the static libraries behind ptx_llvm.c, for NVPTX alone, and what they need.
find_program(LLVM_19_CONFIG NAMES llvm-config-19 llvm-config HINTS /usr/lib/llvm-19/bin NO_DEFAULT_PATH)
find_program(LLVM_19_CONFIG NAMES llvm-config-19 REQUIRED)
execute_process(COMMAND ${LLVM_19_CONFIG} --link-static --libfiles nvptx passes bitreader
  OUTPUT_VARIABLE llvm_files OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(llvm_files)
find_library(LLVM_ZLIB NAMES z libz.so.1 REQUIRED)
find_library(LLVM_ZSTD NAMES zstd libzstd.so.1 REQUIRED)
set(MOSSC_LLVM ${llvm_files} -Wl,--as-needed,-Bstatic -lstdc++ -Wl,-Bdynamic ${LLVM_ZLIB} ${LLVM_ZSTD}
  ${CMAKE_DL_LIBS} m)
add_link_options(-static-libgcc -Wl,--gc-sections)
