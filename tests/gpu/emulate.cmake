# GPU kernels without a GPU: the emulator and its own test. Included by tests/CMakeLists.txt.
add_library(gpu_emulator STATIC gpu/emulate.c gpu/emulate_launch.c gpu/emulate_ops.c gpu/emulate_races.c)
set_target_properties(gpu_emulator PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(gpu_emulator PUBLIC Threads::Threads ${CMAKE_DL_LIBS} m)

add_executable(test_gpu_emulate gpu/test_emulate.c)
target_link_libraries(test_gpu_emulate PRIVATE gpu_emulator PkgConfig::CUNIT)
test_command(gpu/emulate test_gpu_emulate)

# Races: kernels are compiled once more, so that the emulator sees every access. Not together with other sanitizers.
if(NOT SANITIZE)
  add_executable(test_gpu_races gpu/test_races.c)
  target_compile_options(test_gpu_races PRIVATE -fsanitize=thread -fno-strict-aliasing)
  target_link_libraries(test_gpu_races PRIVATE gpu_emulator PkgConfig::CUNIT)
  test_command(gpu/races test_gpu_races)
endif()

# check_NAME.c and NAME.cases: a program and a library of the kernels it needs, rendered for the CPU.
add_executable(gpu_cases gpu/cases.c)
target_link_libraries(gpu_cases PRIVATE mossc_codegen)
set(gpu_kernels ${CMAKE_CURRENT_BINARY_DIR}/gpu_kernels)
file(MAKE_DIRECTORY ${gpu_kernels}/races)
if(SANITIZE)
  set(gpu_sanitize "SANITIZE=-fsanitize=address,undefined -fno-sanitize-recover=all")
endif()
set(gpu_host_kernels ${CMAKE_COMMAND} -E env GPU_CASES=$<TARGET_FILE:gpu_cases> EMULATOR=$<TARGET_FILE:gpu_emulator>
  CC=${CMAKE_C_COMPILER} ${gpu_sanitize} sh ${CMAKE_CURRENT_SOURCE_DIR}/gpu/host_kernels.sh)
file(GLOB case_files CONFIGURE_DEPENDS gpu/*.cases)
file(GLOB dialect_files CONFIGURE_DEPENDS gpu/emulate*.h ${PROJECT_SOURCE_DIR}/codegen/gpu/*.h)
foreach(path IN LISTS case_files)
  get_filename_component(name ${path} NAME_WE)
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/gpu/check_${name}.c)
    continue()
  endif()
  add_custom_command(OUTPUT ${gpu_kernels}/${name}.so ${gpu_kernels}/${name}.list
    COMMAND gpu_cases list ${path} > ${gpu_kernels}/${name}.list
    COMMAND ${gpu_host_kernels} ${path} ${gpu_kernels}/${name}.so
    DEPENDS ${path} gpu_cases gpu_emulator gpu/host_kernels.sh ${dialect_files}
    COMMENT "Rendering GPU kernels of ${name}.cases" VERBATIM)
  add_executable(test_gpu_${name} gpu/check_${name}.c gpu/check.c gpu/check_host.c gpu/check_cuda.c
    ${gpu_kernels}/${name}.so)
  target_link_libraries(test_gpu_${name} PRIVATE ${CMAKE_DL_LIBS} m)
  test_command(gpu/${name} test_gpu_${name} ${gpu_kernels})
  if(NOT SANITIZE)
    add_custom_command(OUTPUT ${gpu_kernels}/races/${name}.so ${gpu_kernels}/races/${name}.list
      COMMAND ${CMAKE_COMMAND} -E copy ${gpu_kernels}/${name}.list ${gpu_kernels}/races/${name}.list
      COMMAND ${CMAKE_COMMAND} -E env RACES=1 ${gpu_host_kernels} ${path} ${gpu_kernels}/races/${name}.so
      DEPENDS ${gpu_kernels}/${name}.list gpu_cases gpu_emulator gpu/host_kernels.sh ${dialect_files}
      COMMENT "Rendering GPU kernels of ${name}.cases, for races" VERBATIM)
    add_custom_target(gpu_races_${name} ALL DEPENDS ${gpu_kernels}/races/${name}.so)
    test_command(gpu/races_${name} test_gpu_${name} ${gpu_kernels}/races)
  endif()
endforeach()

# The stand-in driver, in a folder of its own: for LD_LIBRARY_PATH.
file(GLOB fake_cuda_files CONFIGURE_DEPENDS gpu/fake_cuda*.c)
add_library(fake_cuda SHARED ${fake_cuda_files})
target_include_directories(fake_cuda PRIVATE ${PROJECT_SOURCE_DIR}/codegen/gpu)
target_link_libraries(fake_cuda PRIVATE Threads::Threads ${CMAKE_DL_LIBS} m)
set_target_properties(fake_cuda PROPERTIES PREFIX "" OUTPUT_NAME libcuda.so.1 SUFFIX ""
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fake_cuda)
add_library(fake_kernels MODULE gpu/fake_kernels.c)
target_link_libraries(fake_kernels PRIVATE -Wl,--whole-archive gpu_emulator -Wl,--no-whole-archive)
add_executable(test_fake_cuda gpu/test_fake_cuda.c)
target_compile_definitions(test_fake_cuda PRIVATE FAKE_CUDA="$<TARGET_FILE:fake_cuda>"
  FAKE_KERNELS="$<TARGET_FILE:fake_kernels>")
target_link_libraries(test_fake_cuda PRIVATE PkgConfig::CUNIT Threads::Threads ${CMAKE_DL_LIBS})
add_dependencies(test_fake_cuda fake_cuda fake_kernels)
test_command(gpu/fake_cuda test_fake_cuda)
