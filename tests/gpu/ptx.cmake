# The developer's view of GPU kernels, and what ptxas says of them. Included by tests/CMakeLists.txt.
add_executable(gpu_render gpu/render.c)
target_link_libraries(gpu_render PRIVATE mossc_codegen)

if(MOSSC_LLVM AND NOT SANITIZE)
  test_command(gpu/ptxas sh tests/gpu/ptxas.sh $<TARGET_FILE:gpu_render>)
  test_command(gpu/ptxas_self sh tests/gpu/ptxas.sh --self-test)
endif()
