# GPU kernels: every codegen/gpu/*.c as LLVM bitcode for nvptx64, embedded in mossc as embedded_gpu_bitcode.
#   MOSSC_LLVM is set to the LLVM 19 library to link, or empty (no LLVM here, or -DGPU_TARGETS=OFF): then nothing is
#   embedded and GPU targets are refused.
# -DSTATIC_LLVM=ON links what mossc uses of LLVM into it (33 MB): it then runs where there is no LLVM.
# A file *_h100.c is compiled for sm_90a, the others for sm_80. Needs clang-19, opt-19, LLVM 19's headers and library.
option(GPU_TARGETS "Build the GPU targets, which takes LLVM 19" ON)
option(STATIC_LLVM "Link LLVM into mossc" OFF)
if(GPU_TARGETS)
  find_program(CLANG_19 NAMES clang-19 HINTS /usr/lib/llvm-19/bin)
  find_program(OPT_19 NAMES opt-19 HINTS /usr/lib/llvm-19/bin)
  find_path(LLVM_19_INCLUDE llvm-c/Core.h HINTS /usr/lib/llvm-19/include /usr/include/llvm-c-19 NO_DEFAULT_PATH)
  find_library(LLVM_19_LIBRARY NAMES LLVM-19 HINTS /usr/lib/llvm-19/lib)
endif()

file(GLOB gpu_template_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/codegen/gpu/*.c)
embed(embedded_gpu_templates ${PROJECT_BINARY_DIR}/embedded_gpu_templates.c ${gpu_template_files})
file(GLOB gpu_header_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/codegen/gpu/*.h)
embed(embedded_gpu_headers ${PROJECT_BINARY_DIR}/embedded_gpu_headers.c ${gpu_header_files})

set(gpu_bitcode_files)
if(GPU_TARGETS AND CLANG_19 AND OPT_19 AND LLVM_19_INCLUDE AND LLVM_19_LIBRARY)
  set(MOSSC_LLVM ${LLVM_19_LIBRARY})
  if(STATIC_LLVM)
    include(cmake/static_llvm.cmake)
  endif()
  set(dialect ${PROJECT_SOURCE_DIR}/codegen/gpu/dialect.h)
  file(GLOB gpu_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/codegen/gpu/*.h)
  set(tidy "sroa,early-cse,simplifycfg,instcombine<no-verify-fixpoint>")
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/bitcode)
  foreach(path IN LISTS gpu_template_files)
    get_filename_component(name ${path} NAME_WE)
    set(out ${PROJECT_BINARY_DIR}/bitcode/${name}.bc)
    if(name MATCHES "_h100$")
      set(architecture -march=sm_90a)
    else()
      set(architecture -march=sm_80)
    endif()
    # No pass of clang's own: its -O1 forbids unrolling later, and parameters are not known yet.
    # The PTX version is named because clang takes it from the CUDA toolkit it finds, and there may be none.
    add_custom_command(OUTPUT ${out}
      COMMAND ${CLANG_19} --target=nvptx64-nvidia-cuda ${architecture} -Xclang -target-feature -Xclang +ptx80
        -x c -std=c17 -ffreestanding -nostdinc
        -ffp-contract=fast -fno-strict-aliasing -fconvergent-functions -Wall -Wextra -Werror -Wno-pass-failed
        -O2 -Xclang -disable-llvm-passes -emit-llvm -include ${dialect} -c ${path} -o ${out}.raw
      COMMAND ${OPT_19} "-passes=always-inline,function(${tidy}),globaldce" ${out}.raw -o ${out}
      DEPENDS ${path} ${gpu_headers} COMMENT "Compiling GPU kernel ${name}" VERBATIM)
    list(APPEND gpu_bitcode_files ${out})
  endforeach()
else()
  set(MOSSC_LLVM "")
  if(GPU_TARGETS)
    message(WARNING "No LLVM 19 (clang-19, llvm-19, llvm-19-dev): mossc is built without GPU targets. "
      "scripts/setup.sh build installs what is missing.")
  endif()
endif()
embed(embedded_gpu_bitcode ${PROJECT_BINARY_DIR}/embedded_gpu_bitcode.c ${gpu_bitcode_files})
