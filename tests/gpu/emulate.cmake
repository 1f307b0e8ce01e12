# GPU kernels without a GPU: the emulator and its own test. Included by tests/CMakeLists.txt.
add_library(gpu_emulator STATIC gpu/emulate.c gpu/emulate_ops.c)
set_target_properties(gpu_emulator PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(gpu_emulator PUBLIC Threads::Threads m)

add_executable(test_gpu_emulate gpu/test_emulate.c)
target_link_libraries(test_gpu_emulate PRIVATE gpu_emulator PkgConfig::CUNIT)
test_command(gpu/emulate test_gpu_emulate)
